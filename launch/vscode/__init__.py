"""VS Code's launch file, and what running one of its configurations means without VS Code.

The launch file is the one place where the steps' command lines are written.  VS Code runs them in its
debugger, make runs them from here, and both must start the same program.  Every decision about what a key
or a variable means stands, with its source, in the README of this folder.

Floors: ``jsonc`` < ``file`` < ``variables`` < ``resolve``; ``invocation`` < ``resolve``.
"""

from .file import Configuration, LaunchFile, find_configuration, parse_launch_file, read_launch_file
from .invocation import Invocation
from .resolve import make_variables, resolve_configuration

__all__ = [
    "Configuration",
    "Invocation",
    "LaunchFile",
    "find_configuration",
    "make_variables",
    "parse_launch_file",
    "read_launch_file",
    "resolve_configuration",
]

"""VS Code's launch file, and what running one of its configurations means without VS Code.

What each key and variable means stands, with its source, in the README of this folder.
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

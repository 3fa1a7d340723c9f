"""VS Code's launch file, and what running a configuration means without VS Code (sources: README.md here).

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

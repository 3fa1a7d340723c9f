"""VS Code's launch file, and what running one of its configurations means without VS Code.

Every decision about what a key or a variable means stands, with its source, in the README of this folder.
"""

from .file import Configuration, LaunchFile, find, load, parse
from .invocation import Invocation
from .resolve import resolve
from .variables import Variables

__all__ = ["Configuration", "Invocation", "LaunchFile", "Variables", "find", "load", "parse", "resolve"]

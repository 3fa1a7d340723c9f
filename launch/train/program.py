"""The training program: checks, teacher, structure, pruning with distillation, evaluation, publishing."""

import sys
from typing import List

from ..core import child
from .arguments import parse_arguments


def _main(argv: List[str]) -> None:
    parse_arguments(argv)
    raise NotImplementedError("the parser alone is there yet")


def start_program() -> None:
    """Run the program on the process's own arguments and leave with its status."""
    sys.exit(child.run_body(_main, sys.argv[1:]))

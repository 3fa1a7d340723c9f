"""Train a variant: see :mod:`launch.train.program`."""

import sys
from pathlib import Path

# Whoever starts this file need not set PYTHONPATH, and a module beside it is no module of Python's.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from launch.train.program import start_program  # noqa: E402

if __name__ == "__main__":
    start_program()

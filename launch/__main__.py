"""``python -m launch``: see :mod:`launch.cli`."""

from .cli import main
from .errors import exit_with_message

if __name__ == "__main__":
    exit_with_message(main)

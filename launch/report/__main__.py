"""``python -m launch.report OUT [TO]``: the report on the trees in a folder."""

from ..errors import exit_with_message
from .command import main

if __name__ == "__main__":
    exit_with_message(main)

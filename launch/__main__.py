"""``python -m launch``: see :mod:`launch.cli`."""

import signal

if __name__ == "__main__":
    # A Ctrl-C while what follows is imported is kept for exit_with_message.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

from .cli import main
from .core.errors import exit_with_message

if __name__ == "__main__":
    exit_with_message(main)

"""The command line of the kit."""

import signal
import sys
from typing import Optional, Sequence

if __name__ == "__main__":
    # A Ctrl-C while what follows is imported is kept for exit_with_message.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

from .errors import exit_with_message
from .options import parse


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; return the exit status.

    :raises KitError: the user's input is at fault.
    """
    command, options = parse(sys.argv[1:] if argv is None else argv)
    if options is None:
        return 0
    # Late, for help is to answer without what it does not need.
    if command == "help":
        from . import help

        print(help.text())
        return 0
    from . import handlers

    return handlers.run(command, options)


if __name__ == "__main__":
    exit_with_message(main)

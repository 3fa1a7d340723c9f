"""The one kind of error that a user of the kit should see."""

import io
import signal
import sys
from typing import Callable, Dict, Iterable, NoReturn

from . import hidden

EXIT_USER_ERROR = 2  # of every command that ended in a KitError
EXIT_INTERRUPTED = 130  # after Ctrl-C: 128 + SIGINT, as shells report it


class KitError(Exception):
    """An error that the user can correct: what is wrong (one sentence), where (may be empty), what to do."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = (("error", self.what), ("where", self.where), ("to do", self.hint))
        return "\n".join(
            f"{label + ':':7}" + text.strip().replace("\n", "\n" + " " * 7)
            for label, text in parts
            if text.strip()
        )

    def as_dict(self) -> Dict[str, str]:
        """Return the three parts, for JSON; ``KitError(**parts)`` makes the error again."""
        return {"what": self.what, "where": self.where, "hint": self.hint}


def make_unknown_error(kind: str, name: str, option: str, known: Iterable[str]) -> KitError:
    """Return the error for an unknown name of a ``kind`` (``source``) in an ``option`` (``SOURCE``)."""
    return KitError(
        f"There is no {kind} {name!r}." if name else f"No {kind} was named.",
        where=f"{option}={name}",
        hint=f"Set {option}= to one of: {', '.join(known)}.",
    )


def exit_with_message(body: Callable[[], int]) -> NoReturn:
    """Run ``body`` and exit with its status; KitError and OSError are printed without traceback, status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A path that is not UTF-8 must not turn a message into a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # kit.sh and launch.cli block it before they become another program: a Ctrl-C since then comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sys.exit(body())
    except KitError as error:
        problem = error
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (`make help | head`) has gone; nobody is left to tell.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        problem = KitError(
            f"The operating system refused: {error.strerror or error}.",
            where=str(error.filename or "a file or folder of this run"),
            hint="Free disk space, or correct the permissions, and run the same command again.",
        )
    print(hidden.redact_text(str(problem)), file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)

"""Writing files whole, and reading paths that a person typed."""

from contextlib import suppress
from pathlib import Path

from .errors import KitError


def write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all, as UTF-8; missing folders are made.

    :raises OSError: it cannot be written; an earlier file is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def typed(text: str, name: str) -> Path:
    """Return the absolute path that a person's ``text`` means, ``~`` included.

    :param name: the variable it was given in (``OUT``), for the error.
    :raises KitError: it cannot be a path.
    """
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise KitError(
            f"This is no path: {error}.", where=f"{name}={text}", hint=f"Correct {name}."
        ) from None

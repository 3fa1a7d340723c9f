"""Writing files whole; reading regular files of a bounded size; and paths that a person typed."""

import errno
import os
import stat
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


def check_regular(path: Path) -> None:
    """Check that reading ``path``, a link perhaps, comes to an end: a device's or a pipe's may not.

    :raises OSError: it is no regular file, or there is none; its ``strerror`` says so.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is no regular file", str(path))


def special(path: Path) -> str:
    """Return why ``path`` is not to be opened: it is a device, say, or cannot be looked at; empty: it may be.

    Of what is not there, and of a folder, whoever reads it says more.
    """
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file.

    :param most: the number of bytes up to which it is read.
    :raises OSError: it is no regular file, or it is longer, or it cannot be read; ``strerror`` says which.
    """
    check_regular(path)
    with path.open("rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It is longer than {most:,} bytes", str(path))
    return content


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

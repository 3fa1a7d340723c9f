"""Writing files whole; reading regular files of a bounded size; and paths that a person typed."""

import errno
import os
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from .errors import KitError

_DAY = 86400.0


def write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all, as UTF-8; missing folders are made.

    :raises OSError: it cannot be written; an earlier file is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name that nobody else has, beside ``path``; what the block writes there takes its place.

    It is flushed to disk first, so that a power cut leaves the old or the new.  Where the block fails, an
    earlier file is untouched.  What a killed process left more than a day ago is removed.
    """
    begin = f".{path.name[:100]}."
    for left in path.parent.iterdir():
        if left.name.startswith(begin) and left.suffix == ".part":
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _DAY:
                    left.unlink()
    part = path.with_name(f"{begin}{os.urandom(8).hex()}.part")
    try:
        yield part
        flush(part)
        part.replace(path)
        flush(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def flush(path: Path) -> None:
    """Have the system put a file, or a folder's list of names, on disk.

    :raises OSError: it cannot.  A filesystem that does not flush folders is no error.
    """
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def flush_all() -> None:
    """Have the system put on disk all that was written: faster than ten thousand files one by one."""
    os.sync()


def flush_tree(folder: Path) -> None:
    """:func:`flush` a folder and everything in it, but not what its links lead to."""
    for place, _, names in os.walk(str(folder)):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                flush(path)
        flush(Path(place))


def check_regular(path: Path) -> None:
    """:raises OSError: no regular file is there, but a device or a pipe, say, that may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is no regular file", str(path))


def special(path: Path) -> str:
    """Return why ``path`` is not to be opened: it is a device, say, or cannot be looked at; empty: it may be.

    It may be where nothing is there, or a folder: who reads it has more to say of that.
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

    :raises OSError: it is no regular file, has more than ``most`` bytes, or cannot be read.
    """
    check_regular(path)
    with path.open("rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It is longer than {most:,} bytes", str(path))
    return content


def check_no_pointer(path: Path) -> None:
    """:raises KitError: ``path`` is what git leaves in a file's place where git-lfs has not fetched the file.

    :raises OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        if handle.read(40).startswith(b"version https://git-lfs"):
            raise KitError(
                "The file is a git-lfs pointer: three lines that stand for the file.",
                where=str(path),
                hint="Run `git lfs pull` in its folder, or download the file itself.",
            )


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

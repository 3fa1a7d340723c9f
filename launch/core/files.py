"""Writing files whole; reading regular files of a bounded size; paths that a person typed."""

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from .errors import KitError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, as :func:`replace_file` does; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a new name beside ``path``; the file that the block writes there takes its place.

    Where the block fails, and through a power cut, an earlier file is untouched.
    """
    part = path.with_name(f".{path.name[:100]}.{os.urandom(8).hex()}.part")
    try:
        yield part
        flush_file(part)
        part.replace(path)
        flush_file(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def flush_file(path: Path) -> None:
    """Have the system put a file, or a folder's list of names, on disk, where the filesystem can."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """:func:`flush_file` a folder and everything in it, but not what its links lead to."""
    for place, _, names in os.walk(str(folder)):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                flush_file(path)
        flush_file(Path(place))


def check_regular(path: Path) -> None:
    """:raises OSError: no regular file is there, but a device or a pipe, say, that may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is no regular file", str(path))


def explain_special(path: Path) -> str:
    """Return why ``path`` is not to be opened, a device, say; empty where it may be, or is not there."""
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_bytes(path: Path, most: int) -> bytes:
    """Return the bytes of a file.

    :raises OSError: it is no regular file, has more than ``most`` bytes, or cannot be read.
    """
    check_regular(path)
    with path.open("rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It is longer than {most:,} bytes", str(path))
    return content


def check_no_pointer(path: Path) -> None:
    """:raises KitError: ``path`` is what git leaves in place of a file that git-lfs has not fetched."""
    with path.open("rb") as handle:
        if handle.read(40).startswith(b"version https://git-lfs"):
            raise KitError(
                "The file is a git-lfs pointer: three lines that stand for the file.",
                where=str(path),
                hint="Run `git lfs pull` in its folder, or download the file itself.",
            )


def expand_path(text: str, name: str) -> Path:
    """Return the absolute path that a person's ``text`` in the variable ``name`` means, ``~`` included.

    :raises KitError: it cannot be a path.
    """
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise KitError(
            f"This is no path: {error}.", where=f"{name}={text}", hint=f"Correct {name}."
        ) from None

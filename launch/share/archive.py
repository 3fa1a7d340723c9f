"""Writing files whose sha256 is known beforehand, into a folder or a tar archive.

What is read from disk on the way is compared with its sum, so that nothing else is ever handed on.
"""

import hashlib
import io
import shutil
import stat
import tarfile
from pathlib import Path
from typing import IO, Callable, Dict, List, Optional, Tuple, Union

from ..core import paths
from ..core.errors import KitError

Content = Union[bytes, Path]
"""What a file is to hold: these bytes, or those of a file."""

Contents = Dict[str, Tuple[Content, str]]
"""Content and sha256 by relative path, with ``/`` between its parts."""

_CHUNK = 1 << 20


def made(text: Union[str, bytes]) -> Tuple[bytes, str]:
    """Return a text, or bytes, with its sha256."""
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    return content, hashlib.sha256(content).hexdigest()


def size(content: Content) -> int:
    """Return the number of bytes.

    :raises OSError: a file cannot be read.
    """
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def write_folder(folder: Path, contents: Contents, tick: Callable[[str], None]) -> None:
    """Write ``contents`` below a folder that is not there yet; files are copied, not linked.

    :param tick: called with each path before it is written.
    :raises KitError: a file has other bytes than those of its sum.
    :raises OSError: something cannot be read or written.
    """
    for name, (content, digest) in contents.items():
        tick(name)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle, _Reader(content, digest) as reader:
            shutil.copyfileobj(reader, handle, _CHUNK)


def write_tar(path: Path, top: str, contents: Contents, mtime: int, tick: Callable[[str], None]) -> None:
    """Write a tar archive with ``contents`` in the folder ``top``.

    Its bytes depend on the arguments alone: members are sorted by name, belong to root, have the modes 0755
    (folders) and 0644, and one time.

    :param mtime: that time, in seconds since 1970, UTC.
    :raises KitError: a file has other bytes than those of its sum.
    :raises OSError: something cannot be read or written.
    """
    with tarfile.open(str(path), "w", format=tarfile.PAX_FORMAT) as archive:
        for member in _members(top, contents, mtime):
            if member.isdir():
                archive.addfile(member)
                continue
            tick(member.name)
            content, digest = contents[member.name[len(top) + 1 :]]
            with _Reader(content, digest) as reader:
                archive.addfile(member, reader)


def _members(top: str, contents: Contents, mtime: int) -> List[tarfile.TarInfo]:
    """Return the members by name; a folder's name sorts before those of what is in it."""
    sizes: Dict[str, Optional[int]] = {top: None}  # None for a folder
    for name, (content, _) in contents.items():
        sizes.update((f"{top}/{parent}", None) for parent in Path(name).parents if parent.name)
        sizes[f"{top}/{name}"] = size(content)
    members = []
    for name, length in sorted(sizes.items()):
        member = tarfile.TarInfo(name)
        member.type = tarfile.DIRTYPE if length is None else tarfile.REGTYPE
        member.mode = 0o755 if length is None else 0o644
        member.size = length or 0
        member.mtime = mtime
        member.uname = member.gname = "root"
        members.append(member)
    return members


class _Reader:
    """The bytes of one file, compared with their sum once all are read."""

    def __init__(self, content: Content, digest: str) -> None:
        self.content = content
        self.digest = digest
        self._sum = hashlib.sha256()
        self._handle: Optional[IO[bytes]] = None

    def __enter__(self) -> "_Reader":
        if isinstance(self.content, bytes):
            self._handle = io.BytesIO(self.content)
        elif stat.S_ISREG(self.content.lstat().st_mode):
            self._handle = self.content.open("rb")
        else:
            raise _changed(self.content)
        return self

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes."""
        assert self._handle is not None
        data = self._handle.read(count)
        self._sum.update(data)
        return data

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        assert self._handle is not None
        self._handle.close()
        if kind is None and self._sum.hexdigest() != self.digest:
            raise _changed(self.content)


def _changed(content: Content) -> KitError:
    return KitError(
        "A file has not the bytes that it is listed with.",
        where=paths.shown(content) if isinstance(content, Path) else "",
        hint="Make the tree again, and leave it alone while it is packaged.",
    )

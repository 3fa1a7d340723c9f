"""Files: written whole, locked, read up to a size, as JSON, their sha256 digests, stamps of what was made."""

import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import stat
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from . import paths
from .errors import KitError

BYTE_ORDER_MARK = "\ufeff"
STAMP_FORMAT = 1  # raised where the form of any Stamp.made changes: a stamp of another form is none

_KEY = paths.BUILD / "digest.key"
_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".safetensors")  # no variant reads these

LOCK = paths.BUILD / "build.lock"  # held by every process that writes below build/ or .venv/

_held: Dict[Path, int] = {}  # the locks of this process, with their descriptors


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 through :func:`replace_file`; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a new path; its file, flushed to disk, replaces ``path`` by a rename once the block succeeds."""
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
    """Flush a file, or a folder's list of names, to disk, where the filesystem can."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to disk; links are not followed."""
    for place, _, names in os.walk(str(folder)):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                flush_file(path)
        flush_file(Path(place))


@contextmanager
def hold_lock(path: Optional[Path] = None, what: str = "this checkout") -> Iterator[int]:
    """Lock a file, :data:`LOCK` by default, and yield its descriptor; a child that inherits it holds it, too.

    While another process works on ``what``, it waits with a message.  A killed process leaves no lock behind.
    """
    path = path or LOCK
    if path in _held:
        yield _held[path]
        return
    while True:
        with _open_lock(path) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                print(f"waiting: another process (pid {holder}) works on {what}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not (path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat())):
                continue  # somebody removed the file meanwhile: this lock locks nothing
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            _held[path] = handle.fileno()
            try:
                yield handle.fileno()
            finally:
                del _held[path]
            return


def _open_lock(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise KitError(
            f"The folder cannot be written to: {error.strerror}.",
            where=paths.show_path(path),
            hint="Correct its permissions, or clone the repository to a folder of your own.",
        ) from None


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Lock an existing folder itself, which leaves no file behind."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> None:
    """:raises OSError: ``path`` is no regular file; reading a device or a pipe may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is no regular file", str(path))


def explain_special(path: Path) -> str:
    """Return why ``path`` must not be opened; empty for a regular file, a folder or a missing path."""
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_bytes(path: Path, most: int) -> bytes:
    """:raises OSError: ``path`` is no regular file, has more than ``most`` bytes, or cannot be read."""
    check_regular(path)
    with path.open("rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It is longer than {most:,} bytes", str(path))
    return content


def check_no_pointer(path: Path) -> None:
    """:raises KitError: ``path`` is a git-lfs pointer, whose file has not been fetched."""
    with path.open("rb") as handle:
        if handle.read(40).startswith(b"version https://git-lfs"):
            raise KitError(
                "The file is a git-lfs pointer: three lines that stand for the file.",
                where=str(path),
                hint="Run `git lfs pull` in its folder, or download the file itself.",
            )


def expand_path(text: str, name: str) -> Path:
    """Return ``text``, the option ``name``'s value, as an absolute path, ``~`` expanded; else a KitError."""
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise KitError(
            f"This is no path: {error}.", where=f"{name}={text}", hint=f"Correct {name}."
        ) from None


def find_position(text: str, index: int) -> str:
    """Return ``line L, column C`` of a character; both count from 1."""
    line_start = text.rfind("\n", 0, index) + 1
    return f"line {text.count(chr(10), 0, index) + 1}, column {index - line_start + 1}"


def show_value(value: Any) -> str:
    """Return a JSON value as errors show it: as in the file, cut after 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


class _TwiceError(ValueError):
    """An object has this key twice."""


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _places(key: str, text: str) -> str:
    """Return every place of a key in ``text``, for an error."""
    forms = "|".join(re.escape(json.dumps(key, ensure_ascii=plain)) for plain in (True, False))
    spots = re.finditer(rf"({forms})(?=\s*:)", text)
    return "".join(f", {find_position(text, spot.start())}" for spot in spots)


def describe_file(path: Path, name: str) -> str:
    """Return a file's name for errors, with the option that named it, if one did."""
    return f"{name}={path}" if name else str(path)


def read_json(path: Path, name: str = "", *, unique: bool = False, others: str = "") -> Any:
    """Return the JSON in ``path``, which the option ``name`` (``TRAIN_FILE``) has named.

    :param unique: whether a key that an object has twice is an error; otherwise the last one counts.
    :param others: another program that reads the file; if named, a byte order mark is an error.
    :raises KitError: the file is missing, unreadable, not UTF-8 or not JSON (with line and column).
    """

    def fail(what: str, hint: str, place: str = "") -> KitError:
        return KitError(what, where=describe_file(path, name) + place, hint=hint)

    try:
        check_regular(path)
        check_no_pointer(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise fail("The file does not exist.", "Correct its name.") from None
    except UnicodeDecodeError as error:
        raise fail(f"The file is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        hint = "Make it readable, or name another."
        raise fail(f"The file cannot be read: {error.strerror}.", hint) from None
    if text.startswith(BYTE_ORDER_MARK):
        if others:
            what = f"The file begins with a byte order mark, which {others} does not read."
            raise fail(what, "Save it as UTF-8 without a byte order mark.")
        text = text[1:]
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise fail("The JSON is nested too deeply.", "Give a file of the expected form.") from None
    except json.JSONDecodeError as error:
        reason, place = error.msg, f", line {error.lineno}, column {error.colno}"
    except _TwiceError as error:
        reason, place = f"the key {show_value(str(error))} is there twice", _places(str(error), text)
    except ValueError as error:  # a number of too many digits
        reason, place = str(error), ""
    raise fail(f"The file is not valid JSON: {reason}.", "Mend the file at that place.", place)


def digest_file(path: Path) -> str:
    """:raises OSError: ``path`` cannot be read, or is no regular file."""
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def digest_value(value: Any) -> str:
    """Return the digest of a JSON value; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_with_key(text: str) -> str:
    """Return a digest that may be published: to guess a short secret takes the key in the build folder."""
    if not _KEY.is_file():
        _KEY.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(_KEY) as part:
            part.touch(0o600)
            part.write_bytes(os.urandom(32))
    return hmac.new(_KEY.read_bytes(), text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def digest_files(files: Iterable[Path], base: Path) -> str:
    """Return one digest of several files and their names relative to ``base``."""
    return digest_value(sorted((path.relative_to(base).as_posix(), digest_file(path)) for path in files))


def digest_model_folder(folder: Path) -> str:
    """Return one digest of the files directly in a model folder, except its weights."""
    return digest_files(
        (path for path in folder.iterdir() if path.is_file() and path.suffix not in _WEIGHTS), folder
    )


class Stamp(NamedTuple):
    """A record in a file beside what was made: what it was made from (``key``) and what was ``made``; JSON.

    It is removed first and written last.  Unless ``made`` has digests, the caller flushes the files before.
    """

    key: Any
    made: Any = None

    @classmethod
    def read(cls, path: Path) -> Optional["Stamp"]:
        """Return the stamp in a file; None where there is none or its digest does not match."""
        try:
            content = json.loads(read_bytes(path, 4 << 20).decode("utf-8"))
            found, digest = cls(content["key"], content["made"]), content["sha256"]
            return found if digest == found._digest() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """:raises OSError: it cannot be written; an earlier stamp is then untouched."""
        content = {"sha256": self._digest(), **self._asdict()}
        write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _digest(self) -> str:
        return digest_value([STAMP_FORMAT, *self])

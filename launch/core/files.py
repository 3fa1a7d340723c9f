"""Files: written whole, read up to a size, as JSON, their digests (sha256), and stamps of what was made."""

import errno
import hashlib
import hmac
import json
import os
import re
import stat
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from . import paths
from .errors import KitError

BYTE_ORDER_MARK = "\ufeff"
STAMP_FORMAT = 1  # raised where the form of any Stamp.made changes: a stamp of another form is none

_KEY = paths.BUILD / "digest.key"
_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".safetensors")  # no variant reads these


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
    """:func:`flush_file` a folder and everything in it; its links are not followed."""
    for place, _, names in os.walk(str(folder)):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                flush_file(path)
        flush_file(Path(place))


def check_regular(path: Path) -> None:
    """:raises OSError: this is no regular file: a device or a pipe, say, may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is no regular file", str(path))


def explain_special(path: Path) -> str:
    """Return why ``path`` is not to be opened; empty where it may be, is a folder or is not there."""
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
    """Return the absolute path that ``text`` means, the value of an option; ``~`` is a home folder.

    :raises KitError: it cannot be a path.
    """
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise KitError(
            f"This is no path: {error}.", where=f"{name}={text}", hint=f"Correct {name}."
        ) from None


def find_position(text: str, index: int) -> str:
    """Return ``line L, column C`` of a character, both counted from 1."""
    line_start = text.rfind("\n", 0, index) + 1
    return f"line {text.count(chr(10), 0, index) + 1}, column {index - line_start + 1}"


def show_value(value: Any) -> str:
    """Return a JSON value as errors show it: as it stands in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


class _TwiceError(ValueError):
    """An object has a key, which is the argument, twice."""


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _places(key: str, text: str) -> str:
    """Return where a key stands in ``text``, in whichever object."""
    forms = "|".join(re.escape(json.dumps(key, ensure_ascii=plain)) for plain in (True, False))
    spots = re.finditer(rf"({forms})(?=\s*:)", text)
    return "".join(f", {find_position(text, spot.start())}" for spot in spots)


def describe_file(path: Path, name: str) -> str:
    """Return a file as errors name it: with the option that has named it, if one has."""
    return f"{name}={path}" if name else str(path)


def read_json(path: Path, name: str = "", *, unique: bool = False, others: str = "") -> Any:
    """Return the JSON in ``path``.

    :param name: the option that has named the file (``TRAIN_FILE``), for the error.
    :param unique: whether a key may be in an object only once; else the last one counts.
    :param others: a program that reads the file, too, and refuses a byte order mark.
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
    """:raises OSError: it cannot be read, or is no regular file."""
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def digest_value(value: Any) -> str:
    """Return the digest of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_with_key(text: str) -> str:
    """Return a digest of ``text`` that may be published: only this checkout can make it.

    With a plain one a short secret is found by trying all.  The random key stays in the build folder.

    :raises OSError: the key cannot be read or written.
    """
    if not _KEY.is_file():
        _KEY.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(_KEY) as part:
            part.touch(0o600)
            part.write_bytes(os.urandom(32))
    return hmac.new(_KEY.read_bytes(), text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def digest_files(files: Iterable[Path], base: Path) -> str:
    """Return one digest over several files and their names relative to ``base``."""
    return digest_value(sorted((path.relative_to(base).as_posix(), digest_file(path)) for path in files))


def digest_model_folder(folder: Path) -> str:
    """Return one digest over a model folder's own files, its weights excepted."""
    return digest_files(
        (path for path in folder.iterdir() if path.is_file() and path.suffix not in _WEIGHTS), folder
    )


class Stamp(NamedTuple):
    """What something was made from (``key``) and what was made, as JSON values, in a file beside it.

    The stamp is the first thing removed and the last thing written: what has one is whole.  Where ``made``
    has no digests, the caller flushes what was made to disk before.
    """

    key: Any
    made: Any = None

    @classmethod
    def read(cls, path: Path) -> Optional["Stamp"]:
        """Return the stamp in a file; None where there is none, or where it is not as it was written."""
        try:
            content = json.loads(read_bytes(path, 4 << 20).decode("utf-8"))
            found, digest = cls(content["key"], content["made"]), content["sha256"]
            return found if digest == found._digest() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """:raises OSError: it cannot be written; an earlier one is untouched then."""
        content = {"sha256": self._digest(), **self._asdict()}
        write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def matches(self, path: Path) -> bool:
        """Return whether the file holds this stamp."""
        return self.read(path) == self

    def _digest(self) -> str:
        return digest_value([STAMP_FORMAT, *self])

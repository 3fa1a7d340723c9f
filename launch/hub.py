"""What ``INPUT=hub`` reads: the model and the questions that upstream's launch file names, as local files.

``hub.json`` lists them: a repository of the model hub at one revision, and the addresses of the questions,
with the bytes and the sha256 of each file where they are published.  They are downloaded once, by
:mod:`launch.hub_client` in an environment that has the hub's own client, into that client's cache.  Folders
below ``build/hub/`` link to them, and a stamp there says what was checked, so that a run asks nobody for what
is there.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from . import digests, files, json_file, locks, paths
from .child import die_with_parent
from .environment import KIT, Venv
from .errors import EXIT_INTERRUPTED, KitError
from .progress import columns, output_of
from .stamp import Stamp

LIST = paths.PACKAGE / "hub.json"
"""The list that counts unless ``HUB=`` names another."""

ENVIRONMENT = Venv(
    paths.ENVIRONMENTS / "hub",
    "the model hub's client",
    ("hub.lock",),
    6e6,
    "import huggingface_hub, requests",
    base=KIT,
)

_VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Both need packages that the environment does not have.
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_ENABLE_HF_TRANSFER": "0",
}
"""What the client's variables are, whatever the person's say; all others of it stay the person's."""


@dataclass(frozen=True)
class File:
    """A file to download.

    :param address: where it is; empty for a file of the model's repository.
    :param bytes: how long it is; None where the hub is to say so.
    :param sha256: None where it is not published.
    """

    name: str
    address: str = ""
    bytes: Optional[int] = None
    sha256: Optional[str] = None


@dataclass(frozen=True)
class Listing:
    """A list of what ``INPUT=hub`` reads.

    :param repository: the model's, as ``owner/name``.
    :param revision: the commit of it.
    :param model: config and tokenizer.
    :param weights: what an evaluation reads besides.
    :param train: questions to calibrate on.
    :param validation: questions to evaluate on.
    """

    repository: str
    revision: str
    model: Tuple[File, ...]
    weights: Tuple[File, ...]
    train: File
    validation: File


@dataclass(frozen=True)
class Local:
    """What a run reads, here.

    :param model: a folder with config and tokenizer, and weights if they were wanted.
    :param questions: the questions; None where none were wanted.
    :param downloaded: repository, revision and the sha256 of each file by its name.
    """

    model: Path
    questions: Optional[Path]
    downloaded: Mapping[str, Any]


def read(path: Path) -> Listing:
    """Return the list in the file ``path``.

    :raises KitError: it cannot be read, or is not of the form of :data:`LIST`.
    """
    content = json_file.read(path, "HUB")
    try:
        model, questions = content["model"], content["questions"]
        found = Listing(
            repository=_matching(r"[\w.-]+(/[\w.-]+)?", model["repository"], "repository"),
            revision=_matching("[0-9a-f]{40}", model["revision"], "revision (the whole hash of a commit)"),
            model=tuple(_file(name, entry) for name, entry in model["files"].items()),
            weights=tuple(_file(name, entry) for name, entry in model["weights"].items()),
            train=_questions(questions["train"]),
            validation=_questions(questions["validation"]),
        )
    except KeyError as error:
        raise _malformed(path, f"the key {error} is missing") from None
    except (AttributeError, TypeError):
        raise _malformed(path, "a text or an object stands where the other must") from None
    except ValueError as error:
        raise _malformed(path, str(error)) from None
    names = [file.name for file in (*found.model, *found.weights, found.train, found.validation)]
    if len(set(names)) < len(names):
        raise _malformed(path, "two files have one name")
    return found


def _malformed(path: Path, problem: str) -> KitError:
    return KitError(
        f"The list of what INPUT=hub reads is not of the form it must be: {problem}.",
        where=f"HUB={path}",
        hint=f"Write it as {paths.shown(LIST)} is.",
    )


def _matching(pattern: str, value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{json.dumps(value)[:60]} is no {what}")
    return value


def _file(name: str, entry: Mapping[str, Any]) -> File:
    _matching(r"\w[\w.-]*", name, "name of a file")
    for key, value in entry.items():
        if key == "sha256":
            _matching("[0-9a-f]{64}", value, "sha256")
        elif key == "bytes":
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{json.dumps(value)[:60]} is no number of bytes")
        elif key != "address":
            raise ValueError(f"the key {key!r} means nothing")
    return File(name, **entry)


def _questions(entry: Mapping[str, Any]) -> File:
    address = _matching(r"https?://[^\s@]+/\w[\w.-]*", entry["address"], "address of a file")
    return _file(address.rpartition("/")[2], {**entry, "bytes": entry["bytes"], "sha256": entry["sha256"]})


def local(listing: Listing, questions: str, weights: bool, ready: Callable[[], None]) -> Local:
    """Return what a run reads as local files, downloaded where they are not there yet.

    :param questions: which of them, ``train`` or ``validation``; empty: none.
    :param weights: whether the run reads the model's weights.
    :param ready: makes the kit's environment, without which the client's cannot be made.
    :raises KitError: a file cannot be had, or is not the one that is listed; nothing of it is kept then.
    """
    model = (*listing.model, *(listing.weights if weights else ()))
    chosen = [getattr(listing, questions)] if questions else []
    wanted = [*model, *chosen]
    base = paths.BUILD / "hub" / digests.of_value(asdict(listing))[:12]
    stamp = base / "stamp.json"
    found = _checked(stamp)
    if any(file.name not in found for file in wanted):
        with locks.exclusive(locks.LOCK, locks.LOCKED):
            found = _checked(stamp)
            missing = [file for file in wanted if file.name not in found]
            if missing:
                ready()
                ENVIRONMENT.ensure()
                found.update(_download(listing, missing))
                files.flush_all()  # what the client wrote, before a stamp says that it is right
                Stamp(None, found).write(stamp)
    # Weights in a folder of their own: whoever makes a tree is not to come upon them.
    folder = base / ("checkpoint" if weights else "model")
    places = [*((folder, file) for file in model), *((base / "questions", file) for file in chosen)]
    for place, file in places:
        _link(place / file.name, found[file.name]["path"])
    downloaded = {
        "repository": listing.repository,
        "revision": listing.revision,
        "files": {file.name: found[file.name]["sha256"] for file in wanted},
    }
    return Local(folder, base / "questions" / chosen[0].name if chosen else None, downloaded)


def _checked(stamp: Path) -> Dict[str, Any]:
    """Return the files of a stamp, by name, that have not changed since their bytes were checked."""
    content = Stamp.read(stamp)
    return {
        name: entry
        for name, entry in (content.made if content else {}).items()
        if Path(entry["path"]).is_file() and entry["state"] == _state(entry["path"])
    }


def _state(path: str) -> List[int]:
    """Return what changes when a file does."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def _link(link: Path, target: str) -> None:
    """Let ``link`` lead to ``target``."""
    if link.is_symlink() and os.readlink(str(link)) == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.{os.urandom(8).hex()}.part")
    new.symlink_to(target)
    new.replace(link)


def _download(listing: Listing, missing: Sequence[File]) -> Dict[str, Any]:
    """Run the client on the files; return each one's path, sha256 and state by its name.

    :raises KitError: one of them cannot be had.
    """
    request = {
        "repository": listing.repository,
        "revision": listing.revision,
        "files": [asdict(file) for file in missing],
    }
    # -E and -s: nothing of the person's Python takes the place of what is locked.
    process = subprocess.Popen(
        [str(ENVIRONMENT.python), "-E", "-s", "-m", f"{__package__}.hub_client", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Of a terminal that does not know its size the library thinks that nothing fits.
        env={**os.environ, **_VARIABLES, "TQDM_NCOLS": str(columns()), "TQDM_NROWS": "20"},
        cwd=str(paths.REPOSITORY),
        preexec_fn=die_with_parent,
    )
    # On a terminal the client draws bars of its own.
    output = output_of(process, quiet=sys.stderr.isatty())
    if process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    try:
        answer = json.loads(output)
    except ValueError:
        raise KitError(
            f"The model hub's client failed with exit status {process.returncode}.",
            where="launch/hub_client.py",
            hint="What it said stands above.  Run the same command again: it resumes.",
        ) from None
    if "error" in answer:
        raise KitError.from_dict(answer["error"])
    return {name: {**entry, "state": _state(entry["path"])} for name, entry in answer["files"].items()}

"""The model hub's client: downloads the files of a list, and checks them.  Run by :mod:`launch.build.hub`.

``python -m launch.build.hub_client REQUEST``, in the environment of ``env/hub.lock``; it prints one JSON object,
``{"files": {name: {"path", "sha256"}}}`` or ``{"error": …}``, the parts of a :class:`KitError`.

What is the model's goes into huggingface_hub's cache, the person's own, which other programs share; what is
not on the hub goes into the folder that huggingface_hub keeps for that beside it.  Mirror, token, cache and
proxies are named by its variables (HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HOME, HTTPS_PROXY), whose values
are not told.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ..core import digests, files, locks
from ..core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, KitError
from ..core.progress import size

_LIBRARY = "sparse-bert-kit"
"""The kit's name among the programs that keep something beside the hub's cache."""

_SEEN = "seen.json"
"""What files without a published sha256 were when they were first downloaded, by repository and revision."""

_ATTEMPTS = 5
"""How often a download goes on where its connection was cut."""

_LONG = 10**8
"""Bytes from which on reading a file takes a time that a person notices."""

_RESUMES = "Run the same command again: it resumes."

_ELSEWHERE = (
    "Or use files: INPUT=files MODEL=<folder> TRAIN_FILE=<questions.json> VALIDATION_FILE=<questions.json>,\n"
    "or the text that comes with the kit: INPUT=sample."
)

_CACHE = "the model hub's cache (HF_HUB_CACHE, HF_ASSETS_CACHE, HF_HOME)"

_ADDRESS = re.compile(r"https?://\S+|(?<=url: )\S+")

Entry = Dict[str, Any]


def _say(text: str) -> None:
    print(f"hub     {text}", file=sys.stderr, flush=True)


class _Client:
    """One request, and what it needs of the library."""

    def __init__(self, repository: str, revision: str) -> None:
        import huggingface_hub

        self.hub = huggingface_hub
        self.repository = repository
        self.revision = revision

    @property
    def name(self) -> str:
        """The hub, as a person may read it: an address in HF_ENDPOINT may hold a secret."""
        default = self.hub.constants.ENDPOINT == self.hub.constants._HF_DEFAULT_ENDPOINT
        return "huggingface.co" if default else "the hub that HF_ENDPOINT names"

    def folder(self, name: str) -> Path:
        """Return the folder ``name`` beside the hub's cache, made if it is not there."""
        return Path(self.hub.cached_assets_path(_LIBRARY, namespace="hub", subfolder=name))

    def where(self, file: Entry) -> str:
        """Return what a file is and where it comes from, for errors."""
        if file["address"]:
            return f"INPUT=hub: {file['address']}"
        return f"INPUT=hub: {file['name']} of {self.repository} at {self.revision}, {self.name}"

    def cached(self, file: Entry) -> Optional[Path]:
        """Return where a file is if it is here."""
        if file["address"]:
            path = self._own(file)
            return path if path.is_file() else None
        found = self.hub.try_to_load_from_cache(self.repository, file["name"], revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def size(self, file: Entry) -> int:
        """Return a file's bytes, 0 where nobody says.

        :raises KitError: the hub has another revision than the one asked for.
        """
        if file["address"]:
            return int(file["bytes"])
        address = self.hub.hf_hub_url(self.repository, file["name"], revision=self.revision)
        found = self.hub.get_hf_file_metadata(address)
        if found.commit_hash is None:
            raise self.hub.errors.FileMetadataError(address)
        if found.commit_hash != self.revision:
            raise KitError(
                f"The hub answers with another revision: {found.commit_hash}.",
                where=self.where(file),
                hint="Use the hub itself, or a mirror that keeps revisions, in HF_ENDPOINT.",
            )
        return int(found.size or 0)

    def download(self, file: Entry) -> Path:
        """Download a file, or the rest of it, and return where it is."""
        if not file["address"]:
            return Path(self.hub.hf_hub_download(self.repository, file["name"], revision=self.revision))
        from huggingface_hub.file_download import http_get

        path = self._own(file)
        part = path.with_name(path.name + ".incomplete")
        with locks.exclusive(path.with_name(path.name + ".lock"), path.name):
            if not path.is_file():
                with part.open("ab") as handle:
                    have = handle.tell()
                    if have < file["bytes"]:  # else it was killed before the next line
                        http_get(file["address"], handle, resume_size=have, displayed_filename=file["name"])
                part.replace(path)
        return path

    def forget(self, file: Entry, path: Path) -> None:
        """Remove what there is of a file."""
        own = [path.with_name(path.name + ".incomplete")] if file["address"] else []
        for gone in (path.resolve(), path, *own):
            with contextlib.suppress(FileNotFoundError):
                gone.unlink()

    def _own(self, file: Entry) -> Path:
        place = hashlib.sha256(file["address"].encode()).hexdigest()[:12]
        return self.folder(place) / str(file["name"])


def _cut(get: Callable[[], Path]) -> Path:
    """Return what ``get`` does, which goes on where it was: the library itself does so only at the start."""
    from requests.exceptions import ChunkedEncodingError

    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ChunkedEncodingError):
            return get()
        time.sleep(1)
    return get()


def _git_sha1(path: Path) -> str:
    """Return what git names a file's content by (``git hash-object``)."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _difference(file: Entry, path: Path, sha256: str, seen: Entry) -> str:
    """Return in what a file is not the one it must be; empty: it is.

    The hub's cache calls a file's content by its sha256, or by git's sha1 of it, as the hub has told it.

    :param seen: bytes and sha256 when it was first downloaded; empty for one that was not before.
    """
    length = path.stat().st_size
    for known, whose in ((file, "listed"), (seen, "there at the first download")):
        if known.get("bytes") not in (None, length):
            return f"it has {length:,} bytes, and the one {whose} {known['bytes']:,}"
        if known.get("sha256") not in (None, sha256):
            return f"its sha256 is {sha256}, and that of the one {whose} {known['sha256']}"
    told = "" if file["address"] else path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", told) and told != sha256:
        return f"its sha256 is {sha256}, and the hub says {told}"
    if re.fullmatch("[0-9a-f]{40}", told) and told != _git_sha1(path):
        return f"git's sha1 of it is {_git_sha1(path)}, and the hub says {told}"
    return ""


def _one(client: _Client, file: Entry, seen: Entry) -> Entry:
    """Return where a file is and its sha256, downloaded if it is not here or here with other bytes.

    :raises KitError: what was downloaded is not the file it must be; it is removed.
    """
    path = client.cached(file)
    while True:
        downloaded = path is None
        if path is None:
            path = _cut(lambda: client.download(file))
        if path.stat().st_size > _LONG:
            _say(f"checking {file['name']}")
        sha256 = digests.of_file(path)
        difference = _difference(file, path, sha256, seen)
        if not difference:
            return {"path": str(path), "sha256": sha256}
        client.forget(file, path)
        if downloaded:
            raise KitError(
                f"What was downloaded is not the file it must be: {difference}.",
                where=client.where(file),
                hint="It was removed.  Run the same command again; if it ends here again, its origin, or\n"
                "the mirror that HF_ENDPOINT or HUB names, has another file.\n" + _ELSEWHERE,
            )
        path = None


def _announce(client: _Client, missing: List[Entry]) -> None:
    """Say what is going to be downloaded, and check that there is room for it."""
    names = []
    total = 0
    for file in missing:
        with _told(client, client.where(file)):
            length = client.size(file)
        names.append(f"{file['name']} ({size(length)})" if length >= 10**5 else file["name"])
        total += length
    if any(not file["address"] for file in missing):
        _say(f"{client.repository} at {client.revision}")
    _say(f"downloading {size(total)}: {', '.join(names)}")
    cache = Path(client.hub.constants.HF_HUB_CACHE).expanduser()
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    if total > free:
        raise KitError(
            f"There is too little free disk space: {size(free)}, and the files have {size(total)}.",
            where=_CACHE,
            hint="Free some space there, or let HF_HOME name a folder on a larger disk.",
        )


@contextlib.contextmanager
def _told(client: _Client, where: str) -> Iterator[None]:
    """Turn what the library or the operating system raises into an error for a person."""
    try:
        yield
    except (OSError, ValueError) as error:
        what, hint = _explained(error, client)
        raise KitError(what, where=where, hint=hint) from None


def _explained(error: Exception, client: _Client) -> Tuple[str, str]:
    """Return what is wrong and what to do about it."""
    import requests
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library says only that the file is not here either
    response = getattr(error, "response", None)
    again = f"{_RESUMES}\n{_ELSEWHERE}"
    if isinstance(error, requests.HTTPError) and response is not None:
        return _refused(response.status_code, response.headers, client)
    if isinstance(error, errors.OfflineModeIsEnabled):
        what = "Nothing is downloaded: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set."
        return what, f"Unset it for this command.\n{_ELSEWHERE}"
    if isinstance(error, errors.FileMetadataError):
        what = "What answers is no model hub: it names no revision, or no size, of the file."
        return what, f"Correct HF_ENDPOINT, or the proxy that answers in the hub's place.\n{_ELSEWHERE}"
    if isinstance(error, requests.RequestException):
        route = "Check the network; behind a proxy set HTTPS_PROXY.  HF_ENDPOINT names a mirror of the hub,\n"
        route += "HUB a list with other addresses of the questions.  "
        return f"The download failed: {_reason(error)}.", route + again
    if isinstance(error, OSError) and error.errno:
        room = "Free disk space, or let HF_HOME name a folder that can be written to.  "
        return f"The file cannot be kept: {error.strerror}.", room + _RESUMES
    if isinstance(error, OSError):  # the library's, about a length
        said = _ADDRESS.sub("<address>", " ".join(str(error).split()))[:300]
        return f"The download failed: {said}", again
    what = f"A folder or an address in a variable cannot be used ({type(error).__name__})."
    return what, "Correct HF_HOME, HF_HUB_CACHE, HF_ASSETS_CACHE and HF_ENDPOINT where they are set."


def _refused(status: int, headers: Any, client: _Client) -> Tuple[str, str]:
    """Return what a status that is an error means and what to do about it."""
    if status in (401, 403):
        sent = "with the token that was sent" if client.hub.get_token() else "without a token"
        what = f"The file may not be read {sent} ({status})."
        hint = "Set HF_TOKEN to a token that may read it, or give HUB, a list with another repository."
        return what, f"{hint}\n{_ELSEWHERE}"
    if status == 404:
        code = headers.get("X-Error-Code")
        hint = "Correct the list: launch/model/hub.json, or the one that HUB names."
        return f"The file is not there (404{', ' + code if code else ''}).", f"{hint}\n{_ELSEWHERE}"
    if status == 429:
        wait = headers.get("Retry-After", "")
        how_long = f"{wait} seconds" if wait.isdigit() else "some minutes"
        what = f"There were too many requests; the next one is welcome in {how_long} (429)."
        return what, f"Wait {how_long}.  {_RESUMES}  With a token in HF_TOKEN more are allowed."
    return f"The answer is an error: {status}.", f"Wait some minutes.  {_RESUMES}\n{_ELSEWHERE}"


def _reason(error: BaseException) -> str:
    """Return the operating system's word for what is behind an error, else the error's kind."""
    reason, cause = type(error).__name__, error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
    return reason


def fetch(request: Entry) -> Entry:
    """Return path and sha256 of each file of a request, by its name.

    :param request: ``repository``, ``revision`` and ``files``, each as :class:`launch.model.hub_list.File`.
    :raises KitError: one cannot be had.
    """
    client = _Client(request["repository"], request["revision"])
    found = {}
    with _told(client, _CACHE):
        record = client.folder("seen") / _SEEN
        missing = [file for file in request["files"] if client.cached(file) is None]
    if missing:
        _announce(client, missing)
    key = f"{client.repository}@{client.revision}"
    for file in request["files"]:
        with _told(client, client.where(file)):
            seen = _seen(record).get(key, {}).get(file["name"], {}) if not file["address"] else {}
            found[file["name"]] = entry = _one(client, file, seen)
            if not file["address"] and not file["sha256"] and not seen:
                _remember(record, key, file["name"], entry)
    return found


def _seen(record: Path) -> Dict[str, Dict[str, Entry]]:
    try:
        content: Dict[str, Dict[str, Entry]] = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _remember(record: Path, key: str, name: str, entry: Entry) -> None:
    with locks.exclusive(record.with_name("lock"), _SEEN):
        content = _seen(record)
        length = Path(entry["path"]).stat().st_size
        content.setdefault(key, {})[name] = {"bytes": length, "sha256": entry["sha256"]}
        files.write(record, json.dumps(content, indent=2) + "\n")


def _is_for_people(record: logging.LogRecord) -> bool:
    """Take addresses, which may hold secrets, out of the library's words, and why it tries again.

    The last reason is in the error.
    """
    record.msg, record.args = _ADDRESS.sub("<address>", record.getMessage()), ()
    return "thrown while requesting" not in record.msg


def main(words: List[str]) -> int:
    """Fetch the files of the request in ``words`` and print the answer; return the exit status."""
    try:
        from huggingface_hub.utils import logging as library

        for handler in library.get_logger("huggingface_hub").handlers:
            handler.addFilter(_is_for_people)
        answer: Entry = {"files": fetch(json.loads(words[0]))}
    except KitError as error:
        answer = {"error": error.as_dict()}
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print(json.dumps(answer))
    return EXIT_USER_ERROR if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

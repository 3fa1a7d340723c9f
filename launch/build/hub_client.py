"""Downloads the files of a list and checks them.  Run by :mod:`launch.build.hub`.

``python -m launch.build.hub_client REQUEST``, in the environment of ``hub.lock``, prints one JSON object:
``{"files": {name: {"path", "sha256"}}}`` or ``{"error": …}``, the parts of a :class:`KitError`.  No value of
its variables (HF_ENDPOINT, HF_TOKEN …) is shown: they may be secret.
"""

import contextlib
import hashlib
import json
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..core import files, machine
from ..core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, KitError
from ..core.progress import format_size

_ATTEMPTS = 5  # of a download whose connection is cut

_LONG = 10**8  # bytes of a file that takes a while to check

_RESUMES = "Run the same command again: it resumes."

_ELSEWHERE = (
    "Or use files: INPUT=files MODEL=<folder> TRAIN_FILE=<questions.json> VALIDATION_FILE=<questions.json>,\n"
    "or the text that comes with the kit: INPUT=sample."
)

_CACHE = "the model hub's cache (HF_HUB_CACHE, HF_ASSETS_CACHE, HF_HOME)"

_ADDRESS = re.compile(r"https?://\S+|(?<=url: )\S+")

Entry = Dict[str, Any]
"""A file of a request: the fields of :class:`launch.model.hub_list.File`."""


def _say(text: str) -> None:
    print(f"hub     {text}", file=sys.stderr, flush=True)


class _Client:
    """A repository at a revision, and where its files and those of other addresses are kept."""

    def __init__(self, repository: str, revision: str) -> None:
        import huggingface_hub

        self.hub = huggingface_hub
        self.repository = repository
        self.revision = revision

    def folder(self, name: str) -> Path:
        """Return the kit's folder ``name`` beside the hub's cache."""
        return Path(self.hub.cached_assets_path("sparse-bert-kit", namespace="hub", subfolder=name))

    def where(self, file: Entry) -> str:
        if file["address"]:
            return f"INPUT=hub: {file['address']}"
        # An address in HF_ENDPOINT may hold a secret.
        default = self.hub.constants.ENDPOINT == self.hub.constants._HF_DEFAULT_ENDPOINT
        hub = "huggingface.co" if default else "the hub that HF_ENDPOINT names"
        return f"INPUT=hub: {file['name']} of {self.repository} at {self.revision}, {hub}"

    def own(self, file: Entry) -> Path:
        """Return where a file that is not on the hub is kept."""
        return self.folder(hashlib.sha256(file["address"].encode()).hexdigest()[:12]) / str(file["name"])

    def first(self, file: Entry) -> Path:
        """Return the file that keeps the sha256 of a file of the hub at its first download."""
        seen = files.digest_value([self.repository, self.revision])[:12]
        return self.folder("seen") / seen / f"{file['name']}.sha256"

    def cached(self, file: Entry) -> Optional[Path]:
        if file["address"]:
            path = self.own(file)
            return path if path.is_file() else None
        found = self.hub.try_to_load_from_cache(self.repository, file["name"], revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def size(self, file: Entry) -> int:
        """Return a file's bytes; 0 where unknown."""
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

    def _download(self, file: Entry) -> Path:
        if not file["address"]:
            return Path(self.hub.hf_hub_download(self.repository, file["name"], revision=self.revision))
        from huggingface_hub.file_download import http_get

        path = self.own(file)
        part = path.with_name(path.name + ".incomplete")
        with files.hold_lock(path.with_name(path.name + ".lock"), path.name):
            if not path.is_file():
                with part.open("ab") as handle:
                    have = handle.tell()
                    if have < file["bytes"]:  # else it was killed before the next line
                        http_get(file["address"], handle, resume_size=have, displayed_filename=file["name"])
                part.replace(path)
        return path

    def download(self, file: Entry) -> Path:
        """Download a file, or the rest of it; go on where the connection is cut, as the library does not."""
        from requests.exceptions import ChunkedEncodingError

        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(ChunkedEncodingError):
                return self._download(file)
            time.sleep(1)
        return self._download(file)


def _difference(file: Entry, path: Path, sha256: str, first: str) -> str:
    """Return how a file differs from the one that it must be; empty: in nothing.

    :param first: its sha256 at the first download; empty where there was none.
    """
    length = path.stat().st_size
    if file["bytes"] not in (None, length):
        return f"it has {length:,} bytes, and the one listed {file['bytes']:,}"
    for known, whose in ((file["sha256"], "listed"), (first, "there at the first download")):
        if known and known != sha256:
            return f"its sha256 is {sha256}, and that of the one {whose} {known}"
    # The cache calls a file by its sha256, or by git's sha1 of it, as the hub has told it.
    told = "" if file["address"] else path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", told) and told != sha256:
        return f"its sha256 is {sha256}, and the hub says {told}"
    if re.fullmatch("[0-9a-f]{40}", told):
        sha1 = hashlib.sha1(b"blob %d\0" % length + path.read_bytes()).hexdigest()  # git hash-object
        return "" if sha1 == told else f"git's sha1 of it is {sha1}, and the hub says {told}"
    return ""


def _fetch_one(client: _Client, file: Entry) -> Entry:
    """Return a file's path and sha256, downloaded if it is missing or has other bytes."""
    first = None if file["address"] or file["sha256"] else client.first(file)
    seen = first.read_text(encoding="utf-8") if first and first.is_file() else ""
    for cached in (client.cached(file), None):
        path = cached or client.download(file)
        if path.stat().st_size > _LONG:
            _say(f"checking {file['name']}")
        sha256 = files.digest_file(path)
        difference = _difference(file, path, sha256, seen)
        if not difference:
            if first and not seen:
                files.write_text(first, sha256)
            return {"path": str(path), "sha256": sha256}
        for gone in (path.resolve(), path):
            with contextlib.suppress(FileNotFoundError):
                gone.unlink()
        if not cached:
            break
    raise KitError(
        f"What was downloaded is not the file it must be: {difference}.",
        where=client.where(file),
        hint="It was removed.  Run the same command again; if it ends here again, its origin, or\n"
        "the mirror that HF_ENDPOINT or HUB names, has another file.\n" + _ELSEWHERE,
    )


def _announce(client: _Client, sizes: Dict[str, int], of_repository: bool) -> None:
    """Say what is going to be downloaded; a KitError where there is no room for it."""
    total = sum(sizes.values())
    names = [f"{name} ({format_size(length)})" if length >= 10**5 else name for name, length in sizes.items()]
    if of_repository:
        _say(f"{client.repository} at {client.revision}")
    _say(f"downloading {format_size(total)}: {', '.join(names)}")
    free = machine.measure_free_disk(Path(client.hub.constants.HF_HUB_CACHE).expanduser())
    if total > free:
        raise KitError(
            f"There is too little free disk space: {format_size(free)},"
            f" and the files have {format_size(total)}.",
            where=_CACHE,
            hint="Free some space there, or let HF_HOME name a folder on a larger disk.",
        )


def fetch_files(request: Entry) -> Entry:
    """Return path and sha256 of each file of a request, by its name; a KitError where one cannot be had."""
    client = _Client(request["repository"], request["revision"])
    where, found, sizes = _CACHE, {}, {}
    try:
        missing = [file for file in request["files"] if client.cached(file) is None]
        for file in missing:
            where = client.where(file)
            sizes[file["name"]] = client.size(file)
        if missing:
            _announce(client, sizes, any(not file["address"] for file in missing))
        for file in request["files"]:
            where = client.where(file)
            found[file["name"]] = _fetch_one(client, file)
    except (OSError, ValueError) as error:  # of the library or the operating system
        what, hint = _explain(error, client)
        raise KitError(what, where=where, hint=hint) from None
    return found


def _explain(error: Exception, client: _Client) -> Tuple[str, str]:
    import requests
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library says only that the file is not here either
    response = getattr(error, "response", None)
    again = f"{_RESUMES}\n{_ELSEWHERE}"
    if isinstance(error, requests.HTTPError) and response is not None:
        return _explain_refusal(response.status_code, response.headers, client)
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


def _explain_refusal(status: int, headers: Any, client: _Client) -> Tuple[str, str]:
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
    """Return the operating system's word for the cause of an error, else the error's type."""
    reason, cause = type(error).__name__, error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
    return reason


def _is_for_people(record: logging.LogRecord) -> bool:
    """Take addresses, which may hold secrets, out of a record; False for the cause of a retry."""
    record.msg, record.args = _ADDRESS.sub("<address>", record.getMessage()), ()
    return "thrown while requesting" not in record.msg


def main(words: List[str]) -> int:
    """Fetch the files of the request and print the answer; return the exit status."""
    try:
        from huggingface_hub.utils import logging as library

        for handler in library.get_logger("huggingface_hub").handlers:
            handler.addFilter(_is_for_people)
        answer: Entry = {"files": fetch_files(json.loads(words[0]))}
    except KitError as error:
        answer = {"error": error.as_dict()}
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print(json.dumps(answer))
    return EXIT_USER_ERROR if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

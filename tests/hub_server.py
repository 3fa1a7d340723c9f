"""A hub of today's manner on this machine: two servers, the hub itself and its store of large files.

As the public hub has answered since July 2025: a file of a repository is a *relative* redirect to
``/api/resolve-cache/…``, a renamed repository one to its new name, a large file an absolute one to another
host; revision, content and size of what is behind it stand in headers.  What it is to do otherwise is said by
the test, request by request.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from urllib.parse import urlparse

from launch.build import hub
from launch.core import files, paths
from launch.model import hub_list

REPOSITORY = "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad"
OLD_NAME = REPOSITORY.partition("/")[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")

TOKEN = "hf_ThisIsNobodysToken"
TRAIN = (paths.SAMPLE / "train.json").read_bytes()
VALIDATION = (paths.SAMPLE / "validation.json").read_bytes()

CHUNK = 10 << 20
"""Bytes that the library writes at a time; what it has of the next ones is lost with the connection."""

Answer = Callable[["_Handler"], bool]
"""Answers a request in a way of its own and returns whether it did."""


@dataclass
class Hub:
    """What the servers hold, how they answer, and what they were asked.

    :param files: the repository's, by name.
    :param pages: other files, by path: the questions.
    :param special: answers of their own; each is asked in turn before the usual one.
    :param requests: method, path, range and whether there was a token, in order.
    """

    files: Dict[str, bytes]
    pages: Dict[str, bytes] = field(default_factory=dict)
    special: List[Answer] = field(default_factory=list)
    requests: List[Tuple[str, str, str, str]] = field(default_factory=list)
    port: int = 0
    store: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, end: str) -> List[Tuple[str, str, str, str]]:
        return [found for found in self.requests if found[0] == method and found[1].endswith(end)]


def etag(name: str, content: bytes) -> str:
    """Return what the hub calls a file's content by: sha256 of a large one, git's sha1 of others."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    @property
    def place(self) -> str:
        return urlparse(self.path).path

    def head(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def content(self, content: bytes, cut: Optional[int] = None, **headers: str) -> None:
        """Answer with a content, or the part that is asked for; ``cut``: with so many bytes of it."""
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.head(206 if start else 200, len(content) - start, **headers)
        if self.command == "GET":
            self.wfile.write(content[start : None if cut is None else start + cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()

    def answer(self) -> None:
        hub, (_, port) = self.hub, self.server.server_address[:2]
        authorization = self.headers.get("Authorization", "")
        hub.requests.append((self.command, self.place, self.headers.get("Range", ""), authorization))
        if any(special(self) for special in hub.special):
            return
        if self.place in hub.pages:
            self.content(hub.pages[self.place])
            return
        parts = self.place.strip("/").split("/")
        name = parts[-1]
        if port == hub.store:
            assert not authorization, "the token goes to the hub alone"
            self.content(hub.files[name])
            return
        facts = {"X_Repo_Commit": REVISION, "ETag": f'"{etag(name, hub.files.get(name, b""))}"'}
        if parts[0] == OLD_NAME:
            self.head(307, Location=self.path.replace(OLD_NAME, REPOSITORY, 1))
        elif name not in hub.files:
            self.head(404, X_Error_Code="EntryNotFound", X_Repo_Commit=REVISION)
        elif parts[:2] == ["api", "resolve-cache"]:
            self.content(hub.files[name], **facts)
        elif name.endswith(LARGE):
            facts["X_Linked_Etag"] = facts.pop("ETag")
            self.head(
                302,
                Location=f"http://127.0.0.1:{hub.store}/store/{name}?Signature=of-the-store",
                X_Linked_Size=str(len(hub.files[name])),
                X_Xet_Hash="0" * 64,
                Link=f'<{hub.address}/api/models/{REPOSITORY}/xet-read-token/{REVISION}>; rel="xet-auth"',
                **facts,
            )
        else:
            where = (
                f"/api/resolve-cache/models/{REPOSITORY}/{REVISION}/{name}?{parts[-1]}=&etag={facts['ETag']}"
            )
            self.head(307, Location=where.replace('"', "%22"), **facts)


def once(end: str, answer: Callable[[_Handler], None], method: str = "GET", times: int = 1) -> Answer:
    """Return an answer of its own to the first requests for paths that end so."""
    left = Counter({end: times})

    def special(handler: _Handler) -> bool:
        if handler.command != method or not handler.place.endswith(end) or left[end] < 1:
            return False
        left[end] -= 1
        answer(handler)
        return True

    return special


@contextlib.contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Run the servers."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.port, hub.store = (server.server_address[1] for server in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Place:
    """A hub, a list of what is on it, and a person with an empty cache."""

    def __init__(self, server: Hub, folder: Path) -> None:
        self.server = server
        self.list = folder / "list.json"
        self.home = folder / "huggingface"
        self.content: Dict[str, Any] = {}
        self.list_all()

    def list_all(self) -> None:
        """Write a list of all that is there."""
        files = self.server.files
        self.content = {
            "model": {
                "repository": REPOSITORY,
                "revision": REVISION,
                "files": {name: {} for name in files if not name.endswith(LARGE)},
                "weights": {name: {} for name in files if name.endswith(LARGE)},
            },
            "questions": {
                "train": self.questions("train.json"),
                "validation": self.questions("dev.json"),
            },
        }
        self.write()

    def questions(self, name: str) -> Dict[str, Any]:
        content = self.server.pages[f"/{name}"]
        address = f"{self.server.address}/{name}"
        return {"address": address, "bytes": len(content), "sha256": sum_of(content)}

    def enlarge(self) -> None:
        """Let there be files of several of the library's chunks."""
        self.server.files["model.safetensors"] = os.urandom(1 << 20) * 25
        self.server.pages["/train.json"] = os.urandom(1 << 20) * 15
        self.content["questions"]["train"] = self.questions("train.json")
        self.write()

    def write(self) -> None:
        self.list.write_text(json.dumps(self.content))

    @property
    def env(self) -> Dict[str, str]:
        own = {"HF_ENDPOINT": self.server.address, "HF_HOME": str(self.home), "HF_TOKEN": TOKEN}
        return {**os.environ, **own, "NO_PROXY": "127.0.0.1"}

    @property
    def base(self) -> Path:
        return paths.BUILD / "hub" / files.digest_value(asdict(hub_list.read_hub_list(self.list)))[:12]

    def local(self, questions: str = "train", weights: bool = False) -> hub.Local:
        return hub.fetch_local(hub_list.read_hub_list(self.list), questions, weights, lambda: None)

    def kept(self) -> List[str]:
        """Return the names of all files of this person's cache that hold something of a download."""
        found = [path for path in self.home.rglob("*") if path.is_file() and path.stat().st_size]
        return [path.name for path in found if path.suffix not in (".sha256", ".lock")]

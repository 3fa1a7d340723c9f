"""uv by itself: the locked wheel out of every kind of index, and an error that names each way out."""

import base64
import contextlib
import hashlib
import http.server
import io
import os
import shutil
import socket
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest

from launch.core import paths
from launch.core.errors import KitError
from launch.setup import index, installer, steps

VERSION = "0.13.9"
FILE = f"uv-{VERSION}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
OTHERS = [
    f"uv-{VERSION}-py3-none-{tag}.whl" for tag in ("musllinux_1_1_x86_64", "macosx_11_0_arm64", "win32")
]


def make_wheel():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"uv-{VERSION}.data/scripts/uv", f"#!/bin/sh\necho uv {VERSION}\n")
        about = f"uv-{VERSION}.dist-info"
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {VERSION}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return content.getvalue()


WHEEL = make_wheel()


class Index(http.server.BaseHTTPRequestHandler):
    """A package index; the server says which ``login`` it asks for."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        self.path = self.path.replace("http://index.invalid", "")  # as a proxy is asked
        given = self.headers.get("Authorization", "")
        if server.login and given != "Basic " + base64.b64encode(server.login.encode()).decode():
            return self.answer(401, b"", "text/plain")
        if self.path == "/simple/uv/":
            files = [*OTHERS, FILE]
            links = "".join(f'<a data-x="&gt;"\n href="{file}#sha256=0">{file}</a><br>' for file in files)
            page = f'<html><head><base href="/files/"></head>{links}</html>'
            return self.answer(200, page.encode(), "text/html; charset=utf-8")
        if self.path == "/moved/uv/":
            self.send_response(302)
            self.send_header("Location", "/simple/uv/")
            self.end_headers()
            return None
        if self.path == f"/files/{FILE}":
            return self.answer(200, server.wheel, "application/octet-stream", server.short)
        return self.answer(404, b"", "text/plain")

    def answer(self, status, content, kind, short=0):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) + short))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(**facts):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.asked, server.login, server.wheel, server.short = [], "", WHEEL, 0
    vars(server).update(facts)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def address(server, login="", path="/simple"):
    return f"http://{login and login + '@'}127.0.0.1:{server.server_port}{path}"


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with no uv and no settings, and a lock that names the uv of these tests."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "SSL_")) or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "all"))
    monkeypatch.setattr(index, "PUBLIC", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(installer, "OWN", tmp_path / "env/uv/uv")
    monkeypatch.setattr(paths, "ENVIRONMENT_DATA", tmp_path)
    digest = hashlib.sha256(WHEEL).hexdigest()
    (tmp_path / installer.LOCK).write_text(
        f"uv=={VERSION} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{digest}\n"
    )
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def fetch(bare, monkeypatch):
    """A function that fetches uv with some variables, and returns it."""

    def done(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with (bare / "lock").open("w") as lock:
            return installer.fetch_uv(steps.Steps(bare / "log", lock.fileno()))

    return done


def starts(uv):
    return subprocess.run([uv, "--version"], capture_output=True, text=True).stdout == f"uv {VERSION}\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX"])
def test_the_wheel_out_of_an_index(fetch, name, capsys):
    with serving() as server:
        before = "mine=" * (name == "UV_INDEX")
        uv = fetch(**{name: before + address(server), "PIP_EXTRA_INDEX_URL": "http://127.0.0.1:9/"})
        assert server.asked == ["/simple/uv/", f"/files/{FILE}"]
    assert uv == str(installer.OWN)
    assert starts(uv)
    assert f"fetching uv {VERSION}, 18.0 MB" in capsys.readouterr().err
    assert [path.name for path in installer.OWN.parent.iterdir()] == ["uv"]


PIP, UV = "home/.config/pip/pip.conf", "home/.config/uv/uv.toml"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (PIP, "[global]\nindex-url = {}\n"),
        (PIP, "[install]\nextra-index-url =\n    http://127.0.0.1:9/a\n    {}\n"),
        ("all/pip/pip.conf", "[global]\nindex-url = {}\n"),
        (UV, 'index-url = "{}"\n'),
        (UV, "[[index]]\nname = 'a'\nurl = 'http://127.0.0.1:9/'\n\n[[index]]\nurl = '{}'\ndefault = true\n"),
        (UV, '# mine\nextra-index-url = [\n    "http://127.0.0.1:9/",\n    "{}",  # here\n]\n'),
        (UV, '[pip]\nindex-url = "{}"\n'),
        ("all/uv/uv.toml", '[[index]]\nurl = "{}"\n'),
    ],
)
def test_the_index_of_a_file(fetch, bare, file, text):
    with serving() as server:
        write(bare / file, text.format(address(server)))
        assert starts(fetch())


@pytest.mark.parametrize("where", ["address", "netrc"])
@pytest.mark.parametrize("path", ["/simple", "/moved"])
def test_an_index_with_a_login(fetch, bare, where, path):
    """The files are on the same host, and get the login as well; so does what is redirected."""
    with serving(login="me:p@ss:word") as server:
        login = "me:p%40ss%3Aword" if where == "address" else ""
        netrc = write(bare / "netrc", "machine 127.0.0.1 login me password p@ss:word\n")
        variables = {} if login else {"NETRC": netrc}
        assert starts(fetch(UV_DEFAULT_INDEX=address(server, login, path), **variables))


def test_an_index_of_files(fetch, bare):
    write(bare / "mirror/simple/uv/index.html", f'<a href="../../files/{FILE}#sha256=1">x</a>')
    write(bare / "mirror/files" / FILE, "")
    (bare / "mirror/files" / FILE).write_bytes(WHEEL)
    assert starts(fetch(PIP_INDEX_URL=(bare / "mirror/simple").as_uri()))


def test_a_proxy_is_asked(fetch):
    """What stands in for one is an index that is asked for whole addresses."""
    with serving() as server:
        proxy = address(server, path="")
        assert starts(fetch(UV_DEFAULT_INDEX="http://index.invalid/simple", http_proxy=proxy))
        assert server.asked[0] == "http://index.invalid/simple/uv/"


def assert_ways_out(error, *words):
    text = str(error.value)
    assert len(text.splitlines()) <= 24
    for word in (*words, "UV_DEFAULT_INDEX", "HTTPS_PROXY", "SSL_CERT_FILE", "on PATH", "launch/README.md"):
        assert word in text, (word, text)
    assert "secret" not in text
    assert not installer.OWN.exists()


@pytest.fixture
def no_pip(monkeypatch):
    monkeypatch.setattr(installer, "_ask_pip", lambda tried: tried.append("no pip"))


def test_each_place_has_its_reason(fetch, no_pip):
    with serving(wheel=WHEEL + b"x") as changed, serving(login="a:b") as closed, serving(short=9) as short:
        more = [address(closed, "me:secret"), address(short), address(changed, path="/none"), "socks5://x/"]
        with pytest.raises(KitError, match="cannot be fetched") as error:
            fetch(
                PIP_INDEX_URL=address(changed, "me:secret"),
                PIP_EXTRA_INDEX_URL=" ".join(more),
            )
    assert_ways_out(error)
    assert error.value.where.splitlines() == [
        f"pip's index-url: its uv {VERSION} is not the locked one: another sha256",
        "pip's extra-index-url: HTTP 401 Unauthorized",
        "pip's extra-index-url: the connection was closed half way",
        "pip's extra-index-url: HTTP 404 Not Found",
        "pip's extra-index-url: unknown url type: socks5",
        "no pip",
    ]


def test_a_proxy_that_leads_nowhere_is_named(fetch, no_pip):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(KitError) as error:
        fetch(HTTPS_PROXY=proxy, UV_DEFAULT_INDEX="https://index.invalid/simple")
    assert_ways_out(error, "the proxy that HTTPS_PROXY names", "UV_DEFAULT_INDEX: Connection refused")
    assert time.monotonic() - started < 10


def test_offline_nobody_is_asked(fetch, monkeypatch):
    monkeypatch.setattr(installer, "_ask_pip", None)
    with serving() as server:
        with pytest.raises(KitError) as error:
            fetch(UV_OFFLINE="1", UV_DEFAULT_INDEX=address(server))
        assert server.asked == []
    assert_ways_out(error, "UV_DEFAULT_INDEX: UV_OFFLINE is set")


def test_where_the_library_does_not_reach_it_pip_is_asked(fetch, bare):
    """It knows kinds of login and proxies that the library does not, and folders of wheels."""
    (bare / "wheels").mkdir()
    (bare / "wheels" / FILE.replace("manylinux_2_17_x86_64.manylinux2014_x86_64", "any")).write_bytes(WHEEL)
    assert starts(fetch(PIP_FIND_LINKS=str(bare / "wheels"), PIP_NO_INDEX="1"))
    assert [path.name for path in installer.OWN.parent.iterdir()] == ["uv"]


def test_a_killed_fetch_leaves_nothing_that_counts(fetch, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with serving() as server:
        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "read", die)
            with pytest.raises(KeyboardInterrupt):
                fetch(UV_DEFAULT_INDEX=address(server))
        assert not installer.OWN.exists()
        assert starts(fetch())


HOME = Path.home()
PYTHONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("version", PYTHONS)
def test_any_python_fetches_it(bare, version):
    """What runs before the environment is there runs on any Python from 3.8 on."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or HOME / ".pyenv") / "versions"
    found = [*sorted(pyenv.glob(f"{version}.*/bin/python3")), shutil.which(f"python{version}")]
    python = str(found[0] or "")
    if not python or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"there is no Python {version} here")
    code = (
        "import os, warnings; warnings.simplefilter('error')\n"
        "from pathlib import Path; from launch.core import paths; from launch.setup import installer, steps\n"
        f"paths.ENVIRONMENT_DATA = Path({str(bare)!r}); installer.OWN = Path({str(installer.OWN)!r})\n"
        f"print(installer.fetch_uv(steps.Steps(Path({str(bare / 'log')!r}), os.open(os.devnull, 0))))"
    )
    with serving() as server:
        env = {**os.environ, "UV_DEFAULT_INDEX": address(server), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [python, "-c", code], cwd=str(paths.REPOSITORY), env=env, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert starts(done.stdout.strip())

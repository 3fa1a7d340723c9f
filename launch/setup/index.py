"""uv's wheel from a package index, with the standard library alone: where there is no pip and no uv yet."""

import base64
import contextlib
import hashlib
import html
import http.client
import netrc
import os
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from .settings import INDEX, derive_uv_settings, read_pip_settings, read_uv_settings

PUBLIC = "https://pypi.org/simple"  # the index that pip and uv ask where no setting names one

_MOST = 200 * 1000 * 1000  # bytes of a page or a wheel; more are not read

# What goes wrong on the way; ValueError: of an address, of a certificate's text.
_FAILURES = (OSError, ValueError, http.client.HTTPException)

Tick = Callable[[int, int], None]  # takes the bytes that are there, and all there will be; 0: nobody knows


def list_indexes() -> List[Tuple[str, str]]:
    """Return the indexes that the settings of pip and uv name: by what, and the address.

    A wheel is known by its hash, so that each will do.  Folders and pages of files are left to pip.
    """
    pip, uv = read_pip_settings(os.environ), read_uv_settings(os.environ)
    if pip.get("no-index", "").lower() in ("1", "yes", "true", "on"):
        return []
    first = (
        *((name, os.environ.get(name, "")) for name in INDEX),
        ("the index of uv's file", " ".join(uv.get("index-url", []))),
        ("pip's index-url", pip.get("index-url", "")),
        ("the public index", PUBLIC),
    )
    further = (
        *((name, os.environ.get(name, "")) for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL")),
        ("further indexes of uv's file", " ".join(uv.get("extra-index-url", []))),
        ("pip's extra-index-url", pip.get("extra-index-url", "")),
    )
    return [
        # Of `name=address`, as UV_INDEX has it, the address.
        (origin, re.sub(r"^[\w-]+=", "", value))
        for origin, values in (next(named for named in first if named[1]), *further)
        for value in re.split(r"[\s,]+", values)
        if value
    ]


def fetch_uv_wheel(version: str, sums: Collection[str], tick: Tick, tried: List[str]) -> Optional[bytes]:
    """Return the wheel of uv for Linux on x86-64, whose sha256 is one of ``sums``; None where it is nowhere.

    :param tried: receives a line for each index, with what was wrong there; no address is shown.
    """
    session = _Session({**os.environ, **derive_uv_settings(os.environ)})
    for origin, address in list_indexes():
        try:
            links = session.list_files(f"{address.rstrip('/')}/uv/")
            fitting = [link for link in links if _fits(link, version)]
            for link in fitting:
                content = session.read(link, tick)[0]
                if hashlib.sha256(content).hexdigest() in sums:
                    return content
                tried.append(f"{origin}: its uv {version} is not the locked one: another sha256")
            if not fitting:
                tried.append(f"{origin}: no wheel of uv {version} for Linux on x86-64")
        except _FAILURES as error:
            tried.append(f"{origin}: {_explain(error)}")
    return None


def _explain(error: BaseException) -> str:
    """Return what went wrong, without an address: that may hold a password."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__ if "://" in str(reason) or not str(reason) else str(reason)


def _fits(link: str, version: str) -> bool:
    file = unquote(urlsplit(link).path).rpartition("/")[2]
    return bool(re.fullmatch(rf"uv-{re.escape(version)}-\S*-manylinux\S*x86_64\.whl", file))


class _Session:
    """Requests, with the settings of uv's ``variables``."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._offline = variables.get("UV_OFFLINE", "").lower() in ("1", "true", "yes", "on")
        self._insecure = variables.get("UV_INSECURE_HOST", "").split()
        seconds = variables.get("UV_HTTP_TIMEOUT") or variables.get("UV_REQUEST_TIMEOUT") or ""
        self._timeout = float(seconds) if re.fullmatch(r"\d+(\.\d+)?", seconds) else 30.0
        self._logins: Dict[str, str] = {}
        self._certificates = variables.get("SSL_CERT_FILE") or None, variables.get("SSL_CERT_DIR") or None
        self._proxies: Dict[str, str] = {}
        for scheme in ("https", "http"):
            names = (f"{scheme.upper()}_PROXY", f"{scheme}_proxy", "ALL_PROXY", "all_proxy")
            proxies = [variables[name] for name in names if variables.get(name)]
            self._proxies.update({scheme: proxies[0]} if proxies else {})

    def list_files(self, address: str) -> List[str]:
        """Return the addresses on an index's page of a package (PEP 503)."""
        content, address = self.read(address)
        text = content.decode("utf-8", "replace")
        for base in re.findall(r"""<base\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", text, re.I)[:1]:
            address = urljoin(address, html.unescape(base))
        links = re.findall(r"""<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", text, re.I)
        return [urljoin(address, html.unescape(link)) for link in links]

    def read(self, address: str, tick: Tick = lambda *_: None) -> Tuple[bytes, str]:
        """Return what is at an address, and the address that it was redirected to."""
        path = _local(address)
        if path is not None:
            path = path / "index.html" if path.is_dir() else path
            return path.read_bytes(), path.as_uri()
        if self._offline:
            raise OSError("UV_OFFLINE is set")
        content = b""
        with self._opener(address).open(self._request(address), timeout=self._timeout) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            while True:
                block = answer.read(1 << 18)
                content += block
                if not block or len(content) > _MOST:
                    break
                tick(len(content), size)
            if len(content) < size:
                raise OSError("the connection was closed half way")
            return content, answer.geturl()

    def _opener(self, address: str) -> urllib.request.OpenerDirector:
        host = urlsplit(address)
        file, folder = self._certificates
        context = ssl.create_default_context(cafile=file, capath=folder)
        if {host.hostname, host.netloc.rpartition("@")[2]} & set(self._insecure):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return urllib.request.build_opener(
            urllib.request.ProxyHandler(self._proxies),
            urllib.request.HTTPSHandler(context=context),
            _Redirects(self),
        )

    def _request(self, address: str) -> urllib.request.Request:
        """Return a request with the login that the address, an earlier one of this host, or netrc has."""
        parts = urlsplit(address)
        login, _, host = parts.netloc.rpartition("@")
        if login:
            self._logins[host] = ":".join(map(unquote, login.split(":", 1)))
        elif host not in self._logins:
            self._logins[host] = _ask_netrc(parts.hostname or "")
        request = urllib.request.Request(
            urlunsplit(parts._replace(netloc=host, fragment="")),
            headers={"Accept": "text/html, */*; q=0.1", "User-Agent": "pip/25.0 (the kit's setup)"},
        )
        if self._logins[host]:
            token = base64.b64encode(self._logins[host].encode()).decode()
            # Not for the host that the answer may lead to.
            request.add_unredirected_header("Authorization", f"Basic {token}")
        return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows an answer to another address with the login of that one's host."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def redirect_request(self, *words: Any) -> Optional[urllib.request.Request]:
        """Return the request that follows, as the base class allows it."""
        request = super().redirect_request(*words)
        return request and self._session._request(request.full_url)


def _ask_netrc(host: str) -> str:
    with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError):
        found = netrc.netrc(os.environ.get("NETRC") or None).authenticators(host)
        if found:
            return f"{found[0]}:{found[2]}"
    return ""


def _local(address: str) -> Optional[Path]:
    """Return the path that an address means, of ``file:`` or a plain one; None where it means none."""
    if address.startswith("file:"):
        return Path(urllib.request.url2pathname(urlsplit(address).path))
    return None if "://" in address else Path(address).expanduser().absolute()

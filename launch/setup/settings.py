"""How a person reaches the package index: pip's and uv's variables and files, as uv's variables."""

import configparser
import contextlib
import os
import re
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from ..core import machine, paths

INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")

_PIP_TO_UV: Tuple[Tuple[Tuple[str, ...], Tuple[str, ...], str], ...] = (
    (("index-url",), INDEX, "index-url"),
    (("trusted-host",), ("UV_INSECURE_HOST",), "allow-insecure-host"),
    (("cert",), ("SSL_CERT_FILE", "SSL_CERT_DIR"), ""),
    (("proxy",), ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "https-proxy"),
    (("timeout", "default-timeout"), ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT"), ""),
)
"""Settings of pip, and uv's variables and file's key for the same; the first is set where uv has none.

extra-index-url and find-links are left out on purpose: uv takes a package from the first index that knows its
name, and where that has other builds than the lock, it fails.
"""


def read_pip_settings(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return pip's settings for installing, as pip reads them (its documentation, "Configuration").

    A variable goes before the section ``install`` of any file, and that before ``global``.
    """
    own, home = environment.get("PIP_CONFIG_FILE", ""), Path(environment.get("HOME", "/"))
    folders = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    places = [*(Path(folder) / "pip" / "pip.conf" for folder in folders), Path("/etc/pip.conf")]
    if not Path(own).is_file():
        person = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        places += [home / ".pip" / "pip.conf", person / "pip" / "pip.conf"]
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser.read([] if own == os.devnull else [*places, *filter(None, [own])], encoding="utf-8")
    found: Dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update(parser[section])
    for name, value in environment.items():
        if name.startswith("PIP_"):
            found[name[len("PIP_") :].lower().replace("_", "-")] = value
    return {name: " ".join(value.split()) for name, value in found.items() if value.strip()}


_TABLE = re.compile(r"^[ \t]*\[\[?([\w.-]+)\]\]?[ \t]*(?:#.*)?$", re.M)
_KEY = re.compile(r"""^[ \t]*([\w-]+)[ \t]*=[ \t]*(\[[^\]]*\]|"[^"\n]*"|'[^'\n]*'|\w+)""", re.M)


def read_uv_settings(environment: Mapping[str, str]) -> Dict[str, List[str]]:
    """Return what uv's own files say of indexes, ``index-url``, ``extra-index-url`` …; a later file's counts.

    No Python before 3.11 reads TOML; of it, uv's settings need tables, strings and lists of strings.
    """
    own, home = environment.get("UV_CONFIG_FILE", ""), Path(environment.get("HOME", "/"))
    person = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    folders = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    places = [Path("/etc"), *map(Path, folders), person]
    files = [Path(own)] if own else [folder / "uv" / "uv.toml" for folder in places]
    found: Dict[str, List[str]] = {}
    for file in [] if environment.get("UV_NO_CONFIG") and not own else files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            first, *rest = _TABLE.split(file.read_text(encoding="utf-8"))
            extra: List[str] = []
            for table, text in [("", first), *zip(rest[::2], rest[1::2])]:
                values = {key: re.findall("[\"']([^\"']+)[\"']", value) for key, value in _KEY.findall(text)}
                if table in ("", "pip"):
                    found.update(values)
                elif table == "index" and re.search(r"^\s*default\s*=\s*true", text, re.M):
                    found["index-url"] = values.get("url", [])
                elif table == "index":
                    extra += values.get("url", [])
            found["extra-index-url"] = [*found.get("extra-index-url", []), *extra]
    return found


def derive_uv_settings(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that, with a person's ``environment``, make uv reach an index as pip does.

    Where a person has no home folder that can be written to, uv keeps what is its own below ``build/``.
    """
    pip, uv = read_pip_settings(environment), read_uv_settings(environment)
    # pip's own library for HTTP looks at these where pip has no setting.
    bundle = environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")
    pip = {**({"cert": bundle} if bundle else {}), **pip}
    settings: Dict[str, str] = {}
    for keys, variables, own in _PIP_TO_UV:
        value = next((pip[key] for key in keys if key in pip), "")
        if value and not uv.get(own) and not any(environment.get(variable) for variable in variables):
            folder = variables[0] == "SSL_CERT_FILE" and Path(value).is_dir()
            settings[variables[1] if folder else variables[0]] = value
    for variable, folder_, instead in (
        ("UV_CACHE_DIR", find_uv_folder(environment, "XDG_CACHE_HOME", ".cache"), "cache"),
        ("UV_PYTHON_INSTALL_DIR", find_uv_folder(environment, "XDG_DATA_HOME", ".local/share"), "python"),
    ):
        if not environment.get(variable) and not machine.is_writable(folder_):
            settings[variable] = str(paths.ENVIRONMENTS / "uv" / instead)
    return settings


def find_uv_folder(environment: Mapping[str, str], variable: str, usual: str) -> Path:
    """Return the folder of uv's below the one that a ``variable`` of the XDG's names, else the home's."""
    return Path(environment.get(variable) or Path(environment.get("HOME") or os.devnull) / usual) / "uv"

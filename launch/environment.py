"""The virtual environment: made from the locks, and made again only when they change.

A stamp in the environment says which locks and which interpreter it was made from.  The stamp is the first
thing removed and the last thing written, so that an environment with a stamp is whole: a setup that was
killed at any moment leaves none, and the next one starts over.
"""

import ast
import collections
import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO, Any, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from . import files, interpreters, locks, paths
from .errors import KitError

INSTALLER = "installer.lock"
"""The lock of the program that installs the others; pip installs this one."""

LOCKS = (INSTALLER, "runtime.lock", "dev.lock")
"""The locks whose packages are in the environment; no others are, but for pip."""

FREE_BYTES = 4 * 10**9
"""Free disk space that a new environment needs: it holds 2.4 GB, and uv unpacks beside it."""

SMOKE_TEST = "import numpy, onnx, openvino.runtime, torch"
"""What must work before an environment counts as made: the packages with the most compiled code."""

TAIL_LINES = 15
"""Lines of a failed step's output that its error shows."""


class Stamp(NamedTuple):
    """What an environment was made from.

    :param python: path of the base interpreter.
    :param version: the interpreter's version.
    :param venv: where the environment was made; the programs in its ``bin`` run in that folder and no other.
    :param locks: :func:`lock_digest` of each lock.
    """

    python: str
    version: str
    venv: str
    locks: Dict[str, str]

    def whole(self) -> bool:
        """Whether the environment is still where it was made and still has its interpreter."""
        return (
            self.venv == str(paths.VENV)
            and os.access(self.python, os.X_OK)
            and os.access(paths.VENV_PYTHON, os.X_OK)
        )


def _stamp_file() -> Path:
    return paths.VENV / ".kit-stamp.json"


def _read_stamp() -> Optional[Stamp]:
    """Return the stamp; None where there is none that can be understood."""
    try:
        content = json.loads(_stamp_file().read_text(encoding="utf-8"))
        python, digests = content["python"], content["locks"]
        return Stamp(str(python["path"]), str(python["version"]), str(content["venv"]), dict(digests))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_stamp(stamp: Stamp) -> None:
    content = {
        "python": {"version": stamp.version, "path": stamp.python},
        "venv": stamp.venv,
        "locks": stamp.locks,
    }
    files.write(_stamp_file(), json.dumps(content, indent=2) + "\n")


def _lines(name: str) -> List[str]:
    """Return a lock's lines without comments, blank lines and continuation marks.

    :raises KitError: the lock cannot be read.
    """
    lock = paths.ENVIRONMENT_DATA / name
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise KitError(
            f"A lock cannot be read: {error.strerror}.",
            where=paths.shown(lock),
            hint="It belongs to the checkout: git checkout -- " + paths.shown(lock),
        ) from None
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip("\\ \t").strip() for line in text.splitlines())
    return [line for line in lines if line]


def lock_digest(name: str) -> str:
    """Return the SHA-256 of what a lock asks for; comments and blank lines do not count.

    :raises KitError: the lock cannot be read.
    """
    return hashlib.sha256("\n".join(_lines(name)).encode()).hexdigest()


def pins(name: str) -> Dict[str, str]:
    """Return a lock's packages and their versions.

    :raises KitError: the lock cannot be read.
    """
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in _lines(name))
    return {match.group(1): match.group(2) for match in found if match}


def _digests() -> Dict[str, str]:
    return {name: lock_digest(name) for name in LOCKS}


def is_ready() -> bool:
    """Whether the environment is whole and made from the locks as they are now.

    This is asked before every command, so it reads four small files and starts nothing.

    :raises KitError: a lock cannot be read.
    """
    stamp = _read_stamp()
    return stamp is not None and stamp.whole() and stamp.locks == _digests()


def ensure(python: str = "") -> bool:
    """Make the environment if it is not ready, and return whether there was anything to do.

    Only one setup works at a time; a second one waits for it and then has nothing to do.

    :param python: the make variable ``PYTHON``; empty where the kit may choose.  An environment made from
        another interpreter is made again.
    :raises KitError: there is no Python 3.8, a thing the setup needs is missing, or a step failed; the next
        call starts over.
    """
    if _satisfies(python):
        return False
    _check_writable()
    with locks.exclusive(paths.BUILD / "setup.lock", "the environment") as lock:
        if _satisfies(python):
            return False
        _make(python, lock)
    return True


def _satisfies(python: str) -> bool:
    stamp = _read_stamp()
    if stamp is None or not is_ready():
        return False
    # The interpreter is recognized by its path where possible: asking it takes a process.
    return python in ("", stamp.python) or _same_file(interpreters.find(python).path, stamp.python)


def _same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _check_writable() -> None:
    """:raises KitError: the lock of a setup cannot be made."""
    file = paths.BUILD / "setup.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise KitError(
            f"The checkout cannot be written to: {error.strerror}.",
            where=paths.shown(file),
            hint="Give yourself write permission, or clone the repository to a folder of your own.",
        ) from None


def compiler() -> str:
    """Return the C++ compiler that extensions are built with: ``$CXX``, else ``c++``, else ``g++``.

    :raises KitError: there is none.
    """
    chosen = os.environ.get("CXX", "").strip()
    if chosen:
        # CXX may hold more than a name: "ccache g++".
        if shutil.which(chosen.split()[0]):
            return chosen
        raise KitError(
            "The C++ compiler that CXX names is not on PATH.",
            where=f"CXX={chosen}",
            hint="Correct CXX, or unset it to have c++ used.",
        )
    for name in ("c++", "g++"):
        if shutil.which(name):
            return name
    raise KitError(
        "There is no C++ compiler; NNCF's extension is compiled on this machine.",
        where="c++ and g++, looked for on PATH",
        hint="Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++), or set CXX.",
    )


def _check_interpreter(interpreter: interpreters.Interpreter) -> None:
    """:raises KitError: the interpreter cannot make environments or has no headers."""
    hint = (
        "{} (Debian, Ubuntu: apt install {}), or name another interpreter with PYTHON=; those of pyenv and uv"
        " have everything."
    )
    if not interpreter.has_venv:
        raise KitError(
            f"Python {interpreter.version} cannot make a virtual environment: it has no ensurepip.",
            where=f"{interpreter.path} ({interpreter.origin})",
            hint=hint.format("Install its venv package", "python3.8-venv"),
        )
    if not interpreter.headers:
        raise KitError(
            f"Python {interpreter.version} has no Python.h; NNCF's extension is compiled against it.",
            where=f"{interpreter.path} ({interpreter.origin})",
            hint=hint.format("Install its headers", "python3.8-dev"),
        )


def _check_space() -> None:
    """:raises KitError: the disk has no room for a new environment."""
    folder = paths.VENV if paths.VENV.is_dir() else paths.VENV.parent
    free = shutil.disk_usage(str(folder)).free
    if free < FREE_BYTES:
        raise KitError(
            f"There is too little free disk space: {free / 1e9:.1f} GB,"
            f" and a new environment needs {FREE_BYTES / 1e9:.0f} GB.",
            where=str(folder),
            hint="Free some space, or clone the repository to a larger disk.",
        )


def _remove_venv() -> None:
    """Empty the environment's folder.

    The folder itself stays where it is a link: somebody wanted the environment on another disk.

    :raises KitError: something in it cannot be removed.
    """
    try:
        if not paths.VENV.is_symlink():
            if paths.VENV.is_dir():
                shutil.rmtree(str(paths.VENV))
            else:
                paths.VENV.unlink()
            return
        for entry in paths.VENV.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(str(entry))
            else:
                entry.unlink()
    except OSError as error:
        raise KitError(
            f"The old environment cannot be removed: {error.strerror}.",
            where=str(error.filename or paths.VENV),
            hint=f"Remove {paths.shown(paths.VENV)} by hand and run the command again.",
        ) from None


def _choose(python: str, stamp: Optional[Stamp]) -> Tuple[interpreters.Interpreter, bool]:
    """Return the interpreter to use, and whether the environment at hand can be brought up to date."""
    whole = stamp is not None and stamp.whole()
    if stamp is not None and whole and not python:
        # The environment's own interpreter, even where a search would now find another first.
        with contextlib.suppress(interpreters.Unusable):
            return interpreters.probe(stamp.python, "the environment's interpreter"), True
        return interpreters.find(), False
    interpreter = interpreters.find(python)
    return interpreter, stamp is not None and whole and _same_file(interpreter.path, stamp.python)


def _make(python: str, lock: int) -> None:
    """Make the environment, or bring it up to date where only the locks have changed."""
    started = time.monotonic()
    stamp = _read_stamp()
    interpreter, keep = _choose(python, stamp)
    compiler()
    _check_interpreter(interpreter)
    # Taken now: a lock that is edited while its packages are installed must count as changed.
    digests = _digests()
    log = paths.BUILD / "log" / "setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        steps = _Steps(stream, log, lock, started)
        with contextlib.suppress(FileNotFoundError):
            _stamp_file().unlink()
        if not keep:
            if os.path.lexists(str(paths.VENV)):
                reason = "which is not the one wanted" if stamp else "left by a setup that did not finish"
                steps.say(f"removing {paths.shown(paths.VENV)}, {reason}")
                _remove_venv()
            _check_space()
        _install(steps, interpreter, keep)
        _write_stamp(Stamp(interpreter.path, interpreter.version, str(paths.VENV), digests))
        steps.say(f"{paths.shown(paths.VENV)} is ready")


def _install(steps: "_Steps", interpreter: interpreters.Interpreter, keep: bool) -> None:
    """Take the steps from an interpreter, or an environment with a stamp, to one with the locks' packages."""
    python, uv = str(paths.VENV_PYTHON), str(paths.VENV / "bin" / "uv")
    lock_files = {name: str(paths.ENVIRONMENT_DATA / name) for name in LOCKS}
    packages = len({package for name in LOCKS for package in pins(name)})
    if not keep:
        steps.run(
            f"making {paths.shown(paths.VENV)} with Python {interpreter.version} ({interpreter.path})",
            [interpreter.path, "-I", "-m", "venv", str(paths.VENV)],
        )
    steps.run(
        "installing the installer",
        [
            *(python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"),
            *("--progress-bar", "off", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("-r", lock_files[INSTALLER]),
        ],
    )
    # sync installs what the locks name, removes what they do not, and resolves nothing.  It leaves pip, which
    # `make` needs for downloading sources.  The build constraints are for jstyleson, of which there is only a
    # source archive.
    steps.run(
        f"installing {packages} packages",
        [
            *(uv, "pip", "sync", "--python", python, "--require-hashes"),
            # jstyleson is built from source: what builds it is locked too.
            *("--preview-features", "build-dependency-hashes", "--require-build-hashes"),
            *(
                "--build-constraints",
                lock_files["runtime.lock"],
                "--build-constraints",
                lock_files[INSTALLER],
            ),
            *lock_files.values(),
        ],
        environment=_uv_environment(python, uv),
        progress=True,
    )
    steps.run("trying the environment", [python, "-I", "-c", SMOKE_TEST])


_PIP_TO_UV: Tuple[Tuple[Tuple[str, ...], Tuple[str, ...]], ...] = (
    (("index-url",), ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
    (("trusted-host",), ("UV_INSECURE_HOST",)),
    (("cert",), ("SSL_CERT_FILE", "SSL_CERT_DIR")),
    (("proxy",), ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")),
    (("timeout", "default-timeout"), ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT")),
)
"""Settings of pip, and uv's variables for the same; the first is set where none of them is.

extra-index-url and find-links are left out on purpose.  The locks' hashes allow only the files that the index
of the lock had, so one index is enough; and uv takes a package from the first index that knows its name, so
that another index with other builds of it would end in an error instead of the right file.
"""


def pip_settings(listing: str) -> Dict[str, str]:
    """Return pip's settings for installing, from the output of ``pip config list``.

    A variable goes before the section ``install``, and that before ``global``: pip's own order.
    """
    sections: Dict[str, Dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        match = re.match(r"(global|install|:env:)\.([a-z-]+)=(.*)", line)
        if match:
            with contextlib.suppress(ValueError, SyntaxError):
                sections[match.group(1)][match.group(2)] = str(ast.literal_eval(match.group(3))).strip()
    return {key: value for section in sections.values() for key, value in section.items() if value}


def uv_settings(pip: Mapping[str, str], environment: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that make uv reach an index as pip does, so that a mirror is set up only once.

    :param pip: :func:`pip_settings`; uv does not read them.
    :param environment: the user's variables; what they say to uv stays.
    """
    settings: Dict[str, str] = {}
    for keys, variables in _PIP_TO_UV:
        value = next((pip[key] for key in keys if key in pip), "")
        if value and not any(environment.get(variable) for variable in variables):
            folder = variables[0] == "SSL_CERT_FILE" and Path(value).is_dir()
            settings[variables[1] if folder else variables[0]] = value
    return settings


def _uv_environment(python: str, uv: str) -> Dict[str, str]:
    """Return what to add to the variables for uv."""

    def ask(*command: str) -> str:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        return answer.stdout.decode("utf-8", "replace")

    # Not at the head of _install: pip and uv are there only after its first steps.
    settings = uv_settings(pip_settings(ask(python, "-I", "-m", "pip", "config", "list")), os.environ)
    cache = ask(uv, "cache", "dir").strip()
    if cache and "UV_LINK_MODE" not in os.environ and _device(Path(cache)) != _device(paths.VENV):
        # What uv falls back to anyway, but without a warning that nobody can act on.
        settings["UV_LINK_MODE"] = "copy"
    return settings


def _device(path: Path) -> int:
    """Return the file system of ``path``, or of the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists()).stat().st_dev


_ADVICE = (
    (
        r"No space left on device|os error 28",
        "The disk is full: free some space, there or in uv's cache (uv cache clean).",
    ),
    (
        r"[Hh]ash mismatch|DO NOT MATCH THE HASHES",
        "The index gave a file that is not the locked one: use another index"
        " (pip config set global.index-url URL), or clear a damaged cache (uv cache clean).",
    ),
    (
        r"dns error|name resolution|error sending request|[Cc]onnection (refused|reset|timed out)|timed out"
        r"|Failed to establish a new connection|Network is unreachable|Failed to fetch|certificate"
        r"|No matching distribution found",
        "The setup needs a route to a package index.  Check the network; behind a proxy set HTTPS_PROXY;"
        " for a mirror: pip config set global.index-url URL.",
    ),
)
"""Signs in a failed step's output, and what to do about each."""


def _advice(output: str) -> str:
    return next((advice for signs, advice in _ADVICE if re.search(signs, output)), "Mend the cause.")


def visible(line: str) -> str:
    """Return what a terminal still shows of a line: no escape sequences, and nothing of what was erased."""
    kept = re.split(r"\x1b\[\d*[JK]", line)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", kept).rstrip().rsplit("\r", 1)[-1]


class _Steps:
    """The steps of one setup: each is announced on the terminal, run, and written to the log."""

    def __init__(self, log: IO[str], log_file: Path, lock: int, started: float) -> None:
        self._log = log
        self._log_file = log_file
        self._lock = lock
        self._started = started

    def say(self, text: str) -> None:
        """Print and log one line."""
        line = f"[{time.monotonic() - self._started:6.1f} s] setup: {text}"
        print(line, file=sys.stderr, flush=True)
        self._write(line)

    def _write(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()

    def run(
        self,
        doing: str,
        command: List[str],
        *,
        environment: Optional[Dict[str, str]] = None,
        progress: bool = False,
    ) -> None:
        """Run ``command``.

        :param doing: what it does, for the terminal.
        :param environment: variables to set for it.
        :param progress: show its output, with progress bars, where standard error is a terminal.
        :raises KitError: it failed; the error has the end of its output.
        """
        self.say(doing)
        tail: Deque[str] = collections.deque(maxlen=TAIL_LINES)
        variables = {name: value for name, value in os.environ.items() if name not in _UNSET}
        variables.update(_SET, **(environment or {}))
        terminal = progress and sys.stderr.isatty()
        try:
            status = self._follow(command, variables, terminal, tail)
        except OSError as error:
            status, tail = -1, collections.deque([f"{command[0]}: {error.strerror}"])
        if status:
            output = "\n".join(tail)
            raise KitError(
                f"The setup failed while {doing} (exit status {status}).",
                where=f"the whole output is in {paths.shown(self._log_file)}",
                hint=_advice(output) + "  Then run the command again.  Its last lines:\n" + output,
            )

    def _follow(self, command: List[str], variables: Dict[str, str], terminal: bool, tail: Deque[str]) -> int:
        """Run ``command``, copy its output to the log and perhaps the terminal; return its exit status."""
        # A program draws progress bars only on a terminal, and the log needs its output too; so it gets a
        # terminal of its own, which is copied to the real one.
        read_end, write_end = pty.openpty() if terminal else os.pipe()
        try:
            if terminal:
                size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(write_end, termios.TIOCSWINSZ, size)
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=write_end,
                    env=variables,
                    cwd=str(paths.REPOSITORY),
                    # If this process is killed, its child works on; the lock is then held until that ends.
                    pass_fds=(self._lock,),
                )
            finally:
                os.close(write_end)
            try:
                for line in _lines_from(read_end, sys.stderr.fileno() if terminal else None):
                    if line:
                        self._write(line)
                        tail.append(line)
                return process.wait()
            except BaseException:
                _stop(process)
                if terminal:
                    # Below the progress bars, not at the end of one.
                    print(file=sys.stderr)
                raise
        finally:
            os.close(read_end)


_UNSET = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON")
"""Variables that would have a step look at another environment than the one being made."""

_SET = {"PIP_USER": "0"}
"""Variables that undo a setting of the user's: pip refuses user = true in a virtual environment."""


def _lines_from(descriptor: int, copy_to: Optional[int]) -> Iterator[str]:
    """Yield what stays visible of each line, and copy all of it."""
    pending = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            # How Linux reports that nobody has the other end of a terminal open any more.
            chunk = b""
        if copy_to is not None:
            os.write(copy_to, chunk)
        *complete, pending = (pending + chunk).split(b"\n")
        # A progress bar is redrawn for minutes without ending its line; only the last drawing can stay.
        pending = pending[max(pending.rfind(b"\x1b[2K"), 0) :]
        for line in complete:
            yield visible(line.decode("utf-8", "replace"))
        if not chunk:
            yield visible(pending.decode("utf-8", "replace"))
            return


def _stop(process: "subprocess.Popen[Any]") -> None:
    """End a child: it may clean up for some seconds (show the cursor again), then it is killed."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

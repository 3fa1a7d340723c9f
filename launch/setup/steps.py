"""Running the steps of a setup: each is announced on the terminal and kept in a log."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Tuple

from ..core import child, paths
from ..core.errors import KitError
from ..core.progress import wait_for_output
from .settings import derive_uv_settings

_ADVICE = (
    (
        r"No space left on device|os error 28",
        "Where the disk is full: free some space, there or in uv's cache (uv cache clean).",
    ),
    (
        r"[Hh]ash mismatch|DO NOT MATCH THE HASHES",
        "Where the index gave a file that is not the locked one: use another index"
        " (pip config set global.index-url URL), or clear a damaged cache (uv cache clean).",
    ),
    (
        r"dns error|name resolution|error sending request|[Cc]onnection (refused|reset|timed out)|timed out"
        r"|Failed to establish a new connection|Network is unreachable|Failed to fetch|certificate"
        r"|No matching distribution found",
        "Where there is no route to a package index: check the network; behind a proxy set HTTPS_PROXY;"
        " for a mirror: pip config set global.index-url URL.",
    ),
)
"""Signs in a failed step's output, and what to do about each."""

_UNSET = (
    *("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON"),
    *("UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON", "UV_PYTHON_PREFERENCE"),
)
"""Variables that would have a step look at another environment than the one being made."""

_SET = {"PIP_USER": "0", "UV_NO_WRAP": "1", "UV_PYTHON_INSTALL_BIN": "0"}
"""In a virtual environment pip fails where its setting ``user`` is true; uv would break an error's lines, and
what :data:`_ADVICE` looks for, at the terminal's edge, and put a link into a folder of the person's."""


class Steps:
    """The steps of one setup, whose words go to ``log``."""

    def __init__(self, log: Path, lock: int) -> None:
        self._log = log
        self._lock = lock  # a descriptor: each step inherits the lock, should it outlive this process
        self._started = time.monotonic()
        self._begun: List[Tuple[str, float]] = []
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

    def list_times(self) -> str:
        """Return how long each step took, until now the last."""
        ends = [*[start for _, start in self._begun[1:]], time.monotonic()]
        return ", ".join(f"{doing} {end - start:.1f} s" for (doing, start), end in zip(self._begun, ends))

    def begin(self, doing: str) -> None:
        """Print and log what the next step does; its first words stand for it in :meth:`list_times`."""
        self._begun.append((re.split(", | with ", doing)[0], time.monotonic()))
        self.say(doing)

    def say(self, text: str) -> None:
        """Print and log one line."""
        line = f"[{time.monotonic() - self._started:6.1f} s] setup: {text}"
        print(line, file=sys.stderr, flush=True)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def run(self, doing: str, command: List[str], *, draws: bool = False) -> None:
        """Run ``command``, with uv's settings; below what it does is shown how long it takes.

        :param doing: what it does, for the terminal.
        :param draws: it draws on a terminal how far it is, and gets the person's own, where there is one.
        :raises KitError: it failed; the error has the end of its output.
        """
        self.begin(doing)
        variables = {name: value for name, value in os.environ.items() if name not in _UNSET}
        draws = draws and sys.stderr.isatty()
        with self._log.open("ab") as log:
            output = sys.stderr.fileno() if draws else log.fileno()
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**variables, **_SET, **derive_uv_settings(os.environ)},
                    cwd=str(paths.REPOSITORY),
                    pass_fds=(self._lock,),
                )
            except OSError as error:
                log.write(os.fsencode(f"{command[0]}: {error.strerror}\n"))
                status = -1
            else:
                wait_for_output(process, quiet=draws)
                status = process.returncode
        if not status:
            return
        words = "" if draws else child.read_tail(self._log)
        fitting = [advice for signs, advice in _ADVICE if not words or re.search(signs, words)]
        advice = "\n".join([*(fitting or ["Mend the cause."]), "Then run the command again."])
        raise KitError(
            f"The setup failed while {doing} (exit status {status}).",
            where=f"the whole output is in {paths.show_path(self._log)}"
            if words
            else "its words stand above",
            hint=advice + (f"  Its last lines:\n{words}" if words else ""),
        )

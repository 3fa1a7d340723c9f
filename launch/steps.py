"""Running the steps of a setup: announced on the terminal, output kept in a log, downloads counted."""

import collections
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO, Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from . import paths
from .downloads import Downloads
from .errors import KitError
from .progress import LOOK_INTERVAL, Elapsed

TAIL_LINES = 15
"""Lines of a failed step's output that its error shows."""

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
    kept = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", kept).rstrip().rsplit("\r", 1)[-1]
    # uv leaves the line that its spinner turns in by blanks up to the terminal's edge.
    return re.sub(r"^[\u2801-\u28ff] .*? {2,}(?=\S)", "", kept)


class Steps:
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
        downloads: bool = False,
    ) -> None:
        """Run ``command``; below what it does is shown how long it takes.

        :param doing: what it does, for the terminal.
        :param environment: variables to set for it.
        :param downloads: it is uv or pip: show how far its downloads are.
        :raises KitError: it failed; the error has the end of its output.
        """
        self.say(doing)
        tail: Deque[str] = collections.deque(maxlen=TAIL_LINES)
        variables = {name: value for name, value in os.environ.items() if name not in _UNSET}
        variables.update(_SET, **(environment or {}))
        try:
            status = self._follow(command, variables, downloads, tail)
        except OSError as error:
            status, tail = -1, collections.deque([f"{command[0]}: {error.strerror}"])
        if status:
            output = "\n".join(tail)
            raise KitError(
                f"The setup failed while {doing} (exit status {status}).",
                where=f"the whole output is in {paths.shown(self._log_file)}",
                hint=_advice(output) + "  Then run the command again.  Its last lines:\n" + output,
            )

    def _follow(
        self, command: List[str], variables: Dict[str, str], downloads: bool, tail: Deque[str]
    ) -> int:
        """Run ``command``, copy its output to the log and show how far it is; return its exit status."""
        # A program draws progress bars only on a terminal; so it gets one, which nobody sees.
        terminal = _terminal() if downloads else None
        read_end, write_end = terminal or os.pipe()
        found = Downloads()
        try:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=write_end,
                    env={**variables, "TERM": "xterm"} if terminal else variables,
                    cwd=str(paths.REPOSITORY),
                    # If this process is killed, its child works on; the lock is then held until that ends.
                    pass_fds=(self._lock,),
                )
            finally:
                os.close(write_end)
            with Elapsed() as elapsed:

                def look(output: bytes) -> None:
                    if downloads:
                        found.feed(output)
                    elapsed.tick(found)

                try:
                    for line in _lines_from(read_end, look):
                        if line:
                            self._write(line)
                            tail.append(line)
                    return process.wait()
                except BaseException:
                    _stop(process)
                    raise
        finally:
            os.close(read_end)


def _terminal() -> Optional[Tuple[int, int]]:
    """Return the two ends of a terminal on which twenty progress bars have room; None where there is none.

    So it is in a container without devpts: only the time is then shown, and not how much was downloaded.
    """
    try:
        read_end, write_end = pty.openpty()
    except OSError:
        return None
    fcntl.ioctl(write_end, termios.TIOCSWINSZ, struct.pack("HHHH", 200, 120, 0, 0))
    return read_end, write_end


_UNSET = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON")
"""Variables that would have a step look at another environment than the one being made."""

_SET = {"PIP_USER": "0", "UV_NO_WRAP": "1"}
"""pip refuses a setting of the user's, user = true, in a virtual environment; uv would break the lines of an
error at the terminal's edge, and what :data:`_ADVICE` looks for with them."""


def _lines_from(descriptor: int, look: Callable[[bytes], None]) -> Iterator[str]:
    """Yield what stays visible of each line.

    :param look: takes all output as it comes; nothing, now and then, while none does.
    """
    pending = b""
    while True:
        if not select.select([descriptor], [], [], LOOK_INTERVAL)[0]:
            look(b"")
            continue
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            # How Linux reports that nobody has the other end of a terminal open any more.
            chunk = b""
        look(chunk)
        *complete, pending = (pending + chunk).split(b"\n")
        # A progress bar is redrawn for minutes without ending its line; only the last drawing can stay.
        pending = pending[max(pending.rfind(b"\x1b[2K"), 0) :]
        for line in complete:
            yield visible(line.decode("utf-8", "replace"))
        if not chunk:
            yield visible(pending.decode("utf-8", "replace"))
            return


def _stop(process: "subprocess.Popen[Any]") -> None:
    """End a child: it may clean up for some seconds, then it is killed."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

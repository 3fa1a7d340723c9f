"""A terminal with a shell into which VS Code types a command line.

Written from what VS Code does, and not from :mod:`launch.vscode.resolve`, which it checks.
"""

import contextlib
import os
import pty
import re
import select
import signal
import time
from pathlib import Path
from typing import List, Optional, Sequence

SCRIPT = """#!/bin/sh
out=$1
shift
for word; do printf '%s\\0' "$word"; done >"$out.part"
mv "$out.part" "$out"
"""


def quoted(word: str) -> str:
    """Return a word as VS Code types it into a shell that is neither PowerShell nor cmd."""
    if word in ("<", ">"):
        return word
    return re.sub(r"""(["'\\$!><#()\[\]*&^| ;{}?`])""", r"\\\1", word) or '""'


def typed(words: Sequence[str]) -> str:
    """Return what VS Code types to have a command line run; debugpy gives it no variables."""
    return " /usr/bin/env " + "".join(f"{quoted(word)} " for word in words)


class Terminal:
    """An interactive shell; ``folder`` takes what it is asked to write."""

    def __init__(self, argv: List[str], folder: Path) -> None:
        self._folder = folder
        self._script = folder / "words"
        self._script.write_text(SCRIPT)
        self._script.chmod(0o755)
        self._count = 0
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/home/person",
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
        }
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(OSError):
                os.chdir(str(folder))
                os.execvpe(argv[0], argv, environment)
            os._exit(127)
        assert self.received("ready") == ["ready"], "the shell does not come up"

    def received(self, *words: str, seconds: float = 60) -> Optional[List[str]]:
        """Return what a program gets that is typed with ``words``; None where none is in that time."""
        self._count += 1
        found, end = self._folder / f"{self._count}", self._folder / f"{self._count}.end"
        self._type(typed([str(self._script), str(found), *words]) + "\r")
        for attempt in range(3):
            # The second time, what is left of the line goes, and whatever it has opened is closed.
            self._type(("\x03" if attempt else "") + typed([str(self._script), str(end), "end"]) + "\r")
            if self._wait(end, seconds):
                break
        if not found.exists():
            return None
        return found.read_bytes().decode("utf-8", "replace").split("\0")[:-1]

    def close(self) -> None:
        """End the shell."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._terminal)
        os.waitpid(self.pid, 0)

    def _type(self, text: str) -> None:
        data = re.sub("\r?\n", "\r", text).encode()
        while data:
            self._read()
            data = data[os.write(self._terminal, data[:512]) :]

    def _read(self) -> None:
        while select.select([self._terminal], [], [], 0)[0]:
            os.read(self._terminal, 65536)

    def _wait(self, path: Path, seconds: float) -> bool:
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            self._read()
            if path.exists():
                return True
            time.sleep(0.005)
        return False

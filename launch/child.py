"""Running a tool as a child: chatter into a log, progress and errors out of it, time and memory measured.

A child never outlives the kit: where the kernel can be asked to (Linux), it is killed with its parent, and
everywhere it inherits the build's lock, so that no other build starts while it still writes.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence

from . import paths, status
from .errors import EXIT_USER_ERROR, KitError

TICK = 0.5
"""Seconds between two looks at the clock while a child runs."""

TAIL_LINES = 15
"""Last lines of the log that are shown when a child fails."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Usage:
    """What a child took.

    :param seconds: wall-clock time.
    :param peak_bytes: the largest resident set of the child or of one of its own children.
    :param cpu_seconds: processor time of the child and of its own children, in user and in system mode.
    """

    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0


def together(usages: Sequence[Usage]) -> Usage:
    """Return what several children took that ran one after the other."""
    return Usage(
        sum(usage.seconds for usage in usages),
        max([0, *(usage.peak_bytes for usage in usages)]),
        sum(usage.cpu_seconds for usage in usages),
    )


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log; a progress bar's carriage returns count as line ends."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 65536))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
    kept = [line.rstrip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return "\n".join(kept[-lines:])


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    what: str,
    tick: Callable[[Optional[str]], None],
    inherit: Sequence[int] = (),
) -> Usage:
    """Run a command to its end and return what it took.

    :param env: its whole environment.
    :param log: takes what it prints, after what the log already holds.
    :param what: the stage, for the error (``making the IR``).
    :param tick: called twice a second with the step the child last reported, or None.
    :param inherit: file descriptors that the child keeps open.
    :raises KitError: it could not be started, reported an error of the user's, or failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    receive, send = os.pipe()
    started = time.monotonic()
    with log.open("ab") as output, os.fdopen(receive, "rb", buffering=0) as pipe:
        output.write(b"$ " + b" ".join(os.fsencode(word) for word in argv) + b"\n")
        output.flush()
        try:
            child = subprocess.Popen(
                list(argv),
                env={**env, status.STATUS_FD: str(send)},
                cwd=str(cwd),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(send, *inherit),
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            os.close(send)
            raise KitError(
                f"{argv[0]} cannot be started: {error.strerror}.",
                where=f"{what}; working directory {cwd}",
                hint="Correct the configuration in the launch file; `make setup` makes .venv/bin/python.",
            ) from None
        os.close(send)
        reported: List[KitError] = []
        try:
            _listen(child, pipe.fileno(), tick, reported)
            _, wait_status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
    child.returncode = code = _exit_code(wait_status)
    if reported:
        raise reported[-1]
    if code != 0:
        raise _failure(what, code, log)
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    cpu = usage.ru_utime + usage.ru_stime
    return Usage(time.monotonic() - started, usage.ru_maxrss * scale, cpu)


def _exit_code(wait_status: int) -> int:
    if os.WIFSIGNALED(wait_status):
        return -os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def _listen(
    child: "subprocess.Popen[bytes]",
    descriptor: int,
    tick: Callable[[Optional[str]], None],
    reported: List[KitError],
) -> None:
    """Follow the child's messages until it closes its end of the pipe, at the latest by ending."""
    step: Optional[str] = None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if selector.select(TICK):
                data = os.read(descriptor, 65536)
                if not data:
                    return
                *complete, pending = (pending + data).split(b"\n")
                for message in status.read(line.decode("utf-8", "replace") for line in complete):
                    if "error" in message:
                        reported.append(KitError.from_dict(message["error"]))
                    step = message.get("step", step)
            tick(step)


def _failure(what: str, code: int, log: Path) -> KitError:
    if code == -signal.SIGKILL:
        reason, hint = (
            "was killed (SIGKILL)",
            "Most often memory ran out: close other programs, or take a larger machine.",
        )
    elif code < 0:
        reason, hint = f"was ended by {signal.Signals(-code).name}", "Run the same command again: it resumes."
    elif code == EXIT_USER_ERROR:
        reason, hint = "refused its input", "Its last lines say why."
    else:
        reason, hint = f"failed with exit status {code}", "Its last lines say why; the log has all of it."
    return KitError(
        f"The stage '{what}' {reason}. Its last lines:\n{tail(log)}",
        where=f"log: {paths.shown(log)}",
        hint=hint,
    )

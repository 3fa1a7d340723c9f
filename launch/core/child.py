"""Running a child process, and how it reports its steps and errors.

A child is killed with its parent (on Linux) and inherits the build's lock, so that no other build starts
while it still writes.  Its output goes to a log.  Steps and errors come as one JSON object a line on the
file descriptor that :data:`STATUS_FD` names; without it (F5, a pasted command) they are printed.
"""

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from . import hidden, paths
from .errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, KitError

STATUS_FD = "LAUNCH_STATUS_FD"
WITH_PARENT = "LAUNCH_WITH_PARENT"
"""Set for the children of a child, which are to end with it, too."""

_started = time.monotonic()
_TICK = 0.5  # seconds between two looks at the clock
_TAIL_LINES = 15
_LOOKED = 1 << 16  # letters at a log's end among which an error is looked for
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Usage:
    """Resources of a child and its own children; ``peak_bytes``: the largest resident set of one process."""

    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0


def sum_usages(usages: Sequence[Usage]) -> Usage:
    """Return the usage of children that ran one after the other: sums, and the largest peak."""
    return Usage(
        sum(usage.seconds for usage in usages),
        max([0, *(usage.peak_bytes for usage in usages)]),
        sum(usage.cpu_seconds for usage in usages),
    )


class KilledError(KitError):
    """A signal ended the command, which says nothing about its inputs."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def read_tail(log: Path) -> str:
    """Return the last lines of a log, a carriage return counted as a line end; empty if it cannot be read."""
    try:
        text = log.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
    kept = [line.rstrip() for line in re.split("[\r\n]", text) if line.strip()]
    return "\n".join(kept[-_TAIL_LINES:])


def run_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    what: str,
    tick: Callable[[Optional[str]], None],
    inherit: Sequence[int] = (),
    status: bool = True,
) -> Usage:
    """Run a command with ``env`` as its whole environment, append its output to ``log``, return its usage.

    :param what: the stage, for the error (``making the IR``).
    :param tick: called at least twice a second with the step that the child last reported, or None.
    :param inherit: file descriptors that the child keeps open.
    :param status: whether steps and errors come by :data:`STATUS_FD`; where its own children would report,
        which do not inherit it, they print instead, and the error is read from the log.
    :raises KitError: it could not be started, reported an error of the user's, or failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    receive, send = os.pipe()
    with os.fdopen(receive, "rb", buffering=0), log.open("ab") as output:
        line = hidden.redact_text(" ".join(map(hidden.show_word, argv)))
        output.write(b"$ " + os.fsencode(line) + b"\n")
        output.flush()
        try:
            child = subprocess.Popen(
                list(argv),
                env={**env, **({STATUS_FD: str(send)} if status else {WITH_PARENT: "1"})},
                cwd=str(cwd),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(send, *inherit),
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise KitError(
                f"{hidden.show_word(argv[0])} cannot be started: {error.strerror}.",
                where=f"{what}; working directory {cwd}",
                hint="Correct the configuration in the launch file; `make setup` makes .venv/bin/python.",
            ) from None
        finally:
            os.close(send)
        try:
            reported = _listen(receive, tick)
            _, wait_status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            _redact(log)
    signalled = os.WIFSIGNALED(wait_status)
    child.returncode = code = -os.WTERMSIG(wait_status) if signalled else os.WEXITSTATUS(wait_status)
    if reported:
        raise reported[-1]
    if code != 0:
        raise (None if status else _find_error(log)) or _failure(what, code, log)
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return Usage(time.monotonic() - started, usage.ru_maxrss * scale, usage.ru_utime + usage.ru_stime)


def _redact(log: Path) -> None:
    text = os.fsdecode(log.read_bytes())
    shown = hidden.redact_text(text)
    if shown != text:
        log.write_bytes(os.fsencode(shown))


def _listen(descriptor: int, tick: Callable[[Optional[str]], None]) -> List[KitError]:
    """Call ``tick`` until the child closes its end of the pipe; return the errors that it sent."""
    reported: List[KitError] = []
    step: Optional[str] = None
    pending = b""
    while True:
        if select.select([descriptor], [], [], _TICK)[0]:
            data = os.read(descriptor, 65536)
            if not data:
                return reported
            *complete, pending = (pending + data).split(b"\n")
            for line in complete:
                with suppress(ValueError):  # of a child that was killed while it wrote
                    message = json.loads(line)
                    if "error" in message:
                        reported.append(KitError(**message["error"]))
                    step = message.get("step", step)
        tick(step)


_PART = "((?:.+)(?:\n {7}.+)*)"
_ERROR = re.compile(rf"^error: {_PART}(?:\nwhere: {_PART})?(?:\nto do: {_PART})?", re.M)


def _find_error(log: Path) -> Optional[KitError]:
    """Return the last error that a log has in the form of :class:`KitError`; None where it has none."""
    found = _ERROR.findall(log.read_text(encoding="utf-8", errors="replace")[-_LOOKED:])
    if not found:
        return None
    what, where, hint = (part.replace("\n" + " " * 7, "\n") for part in found[-1])
    return KitError(what, where=where, hint=hint)


def _failure(what: str, code: int, log: Path) -> KitError:
    if code == -signal.SIGKILL:
        reason = "was killed (SIGKILL)"
        hint = "Most often memory ran out: close other programs, or take a larger machine."
    elif code < 0:
        reason, hint = f"was ended by {signal.Signals(-code).name}", "Run the same command again: it resumes."
    elif code == EXIT_USER_ERROR:
        reason, hint = "refused its input", "Its last lines say why."
    else:
        reason, hint = f"failed with exit status {code}", "Its last lines say why; the log has all of it."
    return (KilledError if code < 0 else KitError)(
        f"The stage '{what}' {reason}. Its last lines:\n{read_tail(log)}",
        where=f"log: {paths.show_path(log)}",
        hint=hint,
    )


def _send(message: Dict[str, Any], text: str) -> None:
    descriptor = os.environ.get(STATUS_FD, "")
    if descriptor.isdigit():
        with suppress(OSError):  # the pipeline has gone; the work is still worth finishing
            os.write(int(descriptor), (json.dumps(message) + "\n").encode())
            return
    print(text, file=sys.stderr, flush=True)


def report_step(name: str) -> None:
    """Report in a few words what begins now."""
    _send({"step": name}, f"[{time.monotonic() - _started:6.1f} s] {name}")


def run_body(body: Any, *arguments: Any) -> int:
    """Run ``body`` and return its exit status; a :class:`KitError` is reported and becomes status 2."""
    if os.environ.get(WITH_PARENT):
        die_with_parent()
    try:
        return int(body(*arguments) or 0)
    except KitError as problem:
        _send({"error": problem.as_dict()}, str(problem))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED

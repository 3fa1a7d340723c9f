"""Running a tool as a child: chatter into a log, progress and errors out of it, time and memory measured.

A child never outlives the kit: where the kernel can be asked to (Linux), it is killed with its parent, and
everywhere it inherits the build's lock, so that no other build starts while it still writes.

How a child comes to be is a :data:`Start`: as a program of its own, or as :mod:`launch.warm` has it.
"""

import abc
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence, Tuple

from . import hidden, paths, status
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


@dataclass(frozen=True)
class Command:
    """What is to be run, and the descriptors that it gets.

    :param env: its whole environment, but for :data:`launch.status.STATUS_FD`, which names ``send``.
    :param output: its standard output and standard error.
    :param receive: the end of the status pipe that stays here.
    :param send: the other end, which it keeps open; whoever has started it closes the copy here.
    :param inherit: what else it keeps open.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    output: int
    receive: int
    send: int
    inherit: Sequence[int]


class Running(abc.ABC):
    """A child that was started."""

    @abc.abstractmethod
    def wait(self) -> Tuple[int, int, float]:
        """Wait for its end; return exit status (negative: a signal), peak in bytes, processor time in s.

        :raises Lost: nobody knows how it ended, and it has.
        """

    @abc.abstractmethod
    def kill(self) -> None:
        """End it at once, and return when it has ended."""


Start = Callable[[Command], Running]
"""Starts a child; raises :class:`Lost`, or the operating system's error, where it cannot."""


class Lost(Exception):
    """What starts children cannot, or has ended and its child with it: the command is to be run otherwise."""


def die_with_parent() -> None:
    """Let the kernel kill this process with the one that started it; only Linux does."""
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
    start: Optional[Start] = None,
) -> Usage:
    """Run a command to its end and return what it took.

    :param env: its whole environment.
    :param log: takes what it prints, after what the log already holds.
    :param what: the stage, for the error (``making the IR``).
    :param tick: called twice a second with the step the child last reported, or None.
    :param inherit: file descriptors that the child keeps open.
    :param start: another way to start it than as a program of its own, which is what is done where it is
        :class:`Lost` that way.
    :raises KitError: it could not be started, reported an error of the user's, or failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("ab") as output:
        line = hidden.redacted(" ".join(map(hidden.shown, argv)))
        output.write(b"$ " + os.fsencode(line) + b"\n")
        output.flush()

        reported: List[KitError] = []

        def attempt(way: Start) -> Tuple[int, int, float]:
            reported.clear()
            receive, send = os.pipe()
            command = Command(argv, env, cwd, output.fileno(), receive, send, inherit)
            return _once(way, command, tick, reported)

        try:
            try:
                code, peak, cpu = attempt(start or _start)
            except Lost:
                code, peak, cpu = attempt(_start)
            finally:
                _redact(log)
        except _NotStarted as error:
            raise KitError(
                f"{hidden.shown(argv[0])} cannot be started: {error}.",
                where=f"{what}; working directory {cwd}",
                hint="Correct the configuration in the launch file; `make setup` makes .venv/bin/python.",
            ) from None
    if reported:
        raise reported[-1]
    if code != 0:
        raise _failure(what, code, log)
    return Usage(time.monotonic() - started, peak, cpu)


def _redact(log: Path) -> None:
    """Take out of a log what is not to be shown: a program may print the variables that it is given."""
    text = os.fsdecode(log.read_bytes())
    named = hidden.redacted(text)
    if named != text:
        log.write_bytes(os.fsencode(named))


class KilledError(KitError):
    """A command was ended by a signal: of its inputs that says nothing."""


class _NotStarted(Exception):
    """The operating system refused to start a command; the message says why."""


class _Own(Running):
    """A child that is a program of its own."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child

    def wait(self) -> Tuple[int, int, float]:
        _, wait_status, usage = os.wait4(self.child.pid, 0)
        self.child.returncode = code = exit_code(wait_status)
        scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
        return code, usage.ru_maxrss * scale, usage.ru_utime + usage.ru_stime

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()


def _start(command: Command) -> Running:
    try:
        return _Own(
            subprocess.Popen(
                list(command.argv),
                env={**command.env, status.STATUS_FD: str(command.send)},
                cwd=str(command.cwd),
                stdin=subprocess.DEVNULL,
                stdout=command.output,
                stderr=subprocess.STDOUT,
                pass_fds=(command.send, *command.inherit),
                preexec_fn=die_with_parent,
            )
        )
    except OSError as error:
        raise _NotStarted(error.strerror) from None


def _once(
    start: Start, command: Command, tick: Callable[[Optional[str]], None], reported: List[KitError]
) -> Tuple[int, int, float]:
    """Start a child, follow it to its end, and return how it ended; as :meth:`Running.wait`."""
    with os.fdopen(command.receive, "rb", buffering=0):
        try:
            running = start(command)
        finally:
            os.close(command.send)
        try:
            _listen(command.receive, tick, reported)
            return running.wait()
        except BaseException:
            running.kill()
            raise


def exit_code(wait_status: int) -> int:
    """Return the exit status that ``wait4`` gave; negative where it was a signal."""
    if os.WIFSIGNALED(wait_status):
        return -os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def _listen(descriptor: int, tick: Callable[[Optional[str]], None], reported: List[KitError]) -> None:
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
    kind = KilledError if code < 0 else KitError
    return kind(
        f"The stage '{what}' {reason}. Its last lines:\n{tail(log)}",
        where=f"log: {paths.shown(log)}",
        hint=hint,
    )

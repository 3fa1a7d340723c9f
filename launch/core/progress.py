"""What the terminal shows while a build runs."""

import shutil
import subprocess
import sys
import time
from typing import Any, Container, List, Optional, Sequence, TextIO

from . import hidden

QUIET_INTERVAL = 60.0
"""Seconds between two lines about the same step where standard error is no terminal."""

LOOK_INTERVAL = 0.5
"""Seconds between two looks at something that is waited for."""


def duration(seconds: float) -> str:
    """Return a time as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Return a number of bytes as megabytes (10⁶) or gigabytes (10⁹)."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return ``1 tree`` or ``n trees``; ``nouns`` where more is said than by an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def columns_of(lines: Sequence[Sequence[str]], right: Container[int] = ()) -> List[str]:
    """Return a table's lines with their words in columns.

    :param right: the columns that are set flush right.
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join(
            word.rjust(width) if place in right else word.ljust(width)
            for place, (word, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def printable(text: str) -> str:
    """Return text that no terminal takes for a command, and that can be written; lines stay lines."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def columns() -> int:
    """Return how wide the terminal is; one that does not know its size says 0."""
    return shutil.get_terminal_size().columns or 80


class Progress:
    """One line a stage: rewritten in place on a terminal, printed now and then into a file.

    :param label: which variant of how many, and which stage.
    :param expected: seconds that the stage is expected to take; None where nobody knows.
    """

    def __init__(self, label: str, expected: Optional[float], stream: Optional[TextIO] = None) -> None:
        self.label = label
        self.expected = expected
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.started = time.monotonic()
        self._step: Optional[str] = None
        self._last = 0.0
        self.tick(None)

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self.started

    def tick(self, step: Optional[str]) -> None:
        """Show the time and the step, where something is worth showing."""
        now = time.monotonic()
        if not self.terminal and self._last and step == self._step and now - self._last < QUIET_INTERVAL:
            return
        self._step, self._last = step, now
        line = f"{self.label}  {duration(self.elapsed)}"
        if self.expected is not None:
            line += f" of about {duration(self.expected)}"
        if step:
            line += f"  {step}"
        if self.terminal:
            # A line that wraps could not be rewritten in place.
            line = line[: columns() - 1]
        self._write(line, end="" if self.terminal else "\n")

    def done(self, note: str) -> None:
        """Close the stage with its time and a few words."""
        self._write(f"{self.label}  {duration(self.elapsed)}  {note}", end="\n")

    def note(self, text: str) -> None:
        """Print a line that stays, above the one that is rewritten."""
        self._write(f"    {text}", end="\n")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        # An error starts on a line of its own and leaves the stage's line as it is.
        if kind is not None and self.terminal:
            print(file=self.stream, flush=True)

    def _write(self, line: str, end: str) -> None:
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}{hidden.redacted(line)}", end=end, file=self.stream, flush=True)


class Elapsed:
    """A line below what was announced: how long it has been going on, and how far it is.

    On a terminal it appears after a second, is rewritten, and goes away in the end; into a file it is printed
    now and then.
    """

    INTERVAL = 10.0
    """Seconds between two lines where standard error is no terminal."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._next = self._started + (1.0 if self._terminal else self.INTERVAL)

    def tick(self, how_far: object = "") -> None:
        """Show the time and ``how_far``, which is made a text only then, where it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (LOOK_INTERVAL if self._terminal else self.INTERVAL)
        line = f"    {duration(now - self._started)}  {how_far}".rstrip()
        if self._terminal:
            # A line that wraps could not be rewritten in place.
            line = line[: columns() - 1]
            print(f"\r\033[K{line}", end="", file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)

    def __enter__(self) -> "Elapsed":
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=self._stream, flush=True)


def output_of(process: "subprocess.Popen[Any]", quiet: bool = False) -> Any:
    """Wait for a process, showing for how long, and return its standard output, which has to be a pipe.

    :param quiet: show nothing, as the process itself does.
    """
    with process, Elapsed() as elapsed:
        try:
            while True:
                try:
                    return process.communicate(timeout=LOOK_INTERVAL)[0]
                except subprocess.TimeoutExpired:
                    if not quiet:
                        elapsed.tick()
        except BaseException:
            process.kill()
            raise

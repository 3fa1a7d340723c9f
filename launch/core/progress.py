"""What a build shows as it runs: on a terminal a line rewritten in place, in a file one now and then."""

import shutil
import subprocess
import sys
import time
from typing import Any, Container, List, Optional, Sequence

from . import hidden

# Seconds; the first two are between two lines where standard error is no terminal.
QUIET_INTERVAL = 60.0  # about the same step
WAIT_INTERVAL = 10.0  # about a process that is waited for
LOOK_INTERVAL = 0.5  # between two looks at it


def format_duration(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_size(count: float) -> str:
    """Return bytes as megabytes (10⁶) or gigabytes (10⁹)."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def format_count(number: int, noun: str, nouns: str = "") -> str:
    """Return ``1 tree`` or ``n trees``; ``nouns``: the plural, if it is not formed by an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def align_columns(lines: Sequence[Sequence[str]], right: Container[int] = ()) -> List[str]:
    """Return a table's lines with their words in columns; columns in ``right`` are set flush right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join(
            word.rjust(width) if place in right else word.ljust(width)
            for place, (word, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def escape_text(text: str) -> str:
    """Return ``text`` with ``?`` for characters that are not printable; line ends stay."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def measure_terminal() -> int:
    """Return the terminal's width in characters; 80 where it is unknown."""
    return shutil.get_terminal_size().columns or 80


def _show(line: str, *, stays: bool) -> None:
    """Print a line: on a terminal over the last one that did not stay, else on a line of its own."""
    terminal = sys.stderr.isatty()
    if terminal and not stays:
        line = line[: measure_terminal() - 1]  # a line that wraps could not be rewritten in place
    end = "" if terminal and not stays else "\n"
    print(f"\r\033[K{line}" if terminal else line, end=end, file=sys.stderr, flush=True)


class Progress:
    """The line of a stage: ``label``, the time so far, ``expected`` seconds (None: unknown), the step."""

    def __init__(self, label: str, expected: Optional[float]) -> None:
        self.label = label
        self.expected = expected
        self.started = time.monotonic()
        self._step: Optional[str] = None
        self._last = 0.0
        self.tick(None)

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self.started

    @property
    def step(self) -> Optional[str]:
        """The step that is shown."""
        return self._step

    def tick(self, step: Optional[str]) -> None:
        """Show the time and the step; without a terminal, only for a new step or after a minute."""
        now = time.monotonic()
        quiet = self._last and step == self._step and now - self._last < QUIET_INTERVAL
        if quiet and not sys.stderr.isatty():
            return
        self._step, self._last = step, now
        line = f"{self.label}  {format_duration(self.elapsed)}"
        if self.expected is not None:
            line += f" of about {format_duration(self.expected)}"
        if step:
            line += f"  {step}"
        _show(hidden.redact_text(line), stays=False)

    def done(self, note: str) -> None:
        """End the stage's line with its time and a note."""
        _show(hidden.redact_text(f"{self.label}  {format_duration(self.elapsed)}  {note}"), stays=True)

    def note(self, text: str) -> None:
        """Print a line that stays above the one that is rewritten."""
        _show(hidden.redact_text(f"    {text}"), stays=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        # An error starts on a line of its own and leaves the stage's line as it is.
        if kind is not None and sys.stderr.isatty():
            print(file=sys.stderr, flush=True)


def wait_for_output(process: "subprocess.Popen[Any]", quiet: bool = False) -> Any:
    """Wait for a process, show the time unless ``quiet``, and return its standard output, a pipe."""
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    due = started + (1.0 if terminal else WAIT_INTERVAL)
    with process:
        try:
            while True:
                try:
                    return process.communicate(timeout=LOOK_INTERVAL)[0]
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                    if not quiet and now >= due:
                        due = now + (LOOK_INTERVAL if terminal else WAIT_INTERVAL)
                        _show(f"    {format_duration(now - started)}", stays=False)
        except BaseException:
            process.kill()
            raise
        finally:
            if terminal:
                _show("", stays=False)

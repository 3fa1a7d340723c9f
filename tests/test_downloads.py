"""How far a download is, from what uv and pip draw; and how it is shown."""

import io
import subprocess
import sys

import pytest

from launch import progress
from launch.downloads import Downloads

RAISE = "\x1b[2A\r\x1b[2K\x1b[1B\r\x1b[2K\x1b[1B\r\x1b[2K\x1b[2A"
"""How uv wipes three lines before it draws them again."""


def bar(name: str, done: str, total: str) -> str:
    """Draw a bar as uv does: no line ends, but blanks up to where the terminal's line does."""
    return f"\x1b[2m{name:20}\x1b[0m \x1b[32m---\x1b[30m\x1b[2m------\x1b[0m\x1b[0m {done:>8}/{total}      "


def picture(packages: str, *bars: str) -> str:
    return f"\x1b[37m⠋\x1b[0m \x1b[2mPreparing packages...\x1b[0m ({packages})      " + "".join(bars) + RAISE


FIRST = picture("3/73", bar("ruff", "1.00 MiB", "10.00 MiB"), bar("torch", "0 B", "790.00 MiB"))
LATER = picture("71/73", bar("torch", "512.0 KiB", "790.00 MiB"))
PIP = (
    "\r\x1b[2K     \x1b[90m━━━━━━\x1b[0m \x1b[32m4.1/17.6 MB\x1b[0m \x1b[31m3.2 MB/s\x1b[0m"
    " eta 0:00:05\r\x1b[2K"
)


def test_uvs_bars_are_added_up_and_the_longest_is_named() -> None:
    found = Downloads()
    assert str(found) == ""
    found.feed(FIRST.encode())
    assert str(found) == "3 of 73 packages, 1.0 MB of 838.9 MB, torch: 0.0 MB of 828.4 MB"


def test_a_file_whose_bar_has_gone_is_there() -> None:
    found = Downloads()
    found.feed((FIRST + LATER).encode())
    assert str(found) == "71 of 73 packages, 11.0 MB of 838.9 MB, torch: 0.5 MB of 828.4 MB"
    found.feed(picture("73/73").encode())
    assert str(found) == "73 of 73 packages, 838.9 MB of 838.9 MB"


def test_it_does_not_matter_where_the_output_is_cut() -> None:
    whole, cut = Downloads(), Downloads()
    output = ("Resolved 73 packages in 250ms\r\r\n" + FIRST + LATER).encode()
    whole.feed(output)
    for number in range(len(output)):
        cut.feed(output[number : number + 1])
    assert str(cut) == str(whole) != ""


def test_pips_bar() -> None:
    found = Downloads()
    found.feed(PIP.encode())
    assert str(found) == "4.1 MB of 17.6 MB"


@pytest.mark.parametrize(
    "output",
    ["", "Using cached wheel (1/2)\n", "\x1b[2K\x1b[2K", "\x1b[2Ka  1.2.3 B/4 B\x1b[2K", "\xff\x1b[2K" * 9],
)
def test_what_is_not_understood_is_passed_over(output: str) -> None:
    found = Downloads()
    found.feed(output.encode("latin-1"))
    assert str(found) == ""


def test_without_a_terminal_a_line_is_printed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.Elapsed() as elapsed:
        for second in range(25):
            clock[0] = 100.0 + second
            elapsed.tick(f"{second} of 25")
    assert sys.stderr.getvalue() == "    0:10  10 of 25\n    0:20  20 of 25\n"


def test_what_is_over_at_once_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.Elapsed() as elapsed:
        elapsed.tick("half")
    assert sys.stderr.getvalue() == ""


def test_a_process_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(progress.Elapsed, "INTERVAL", 0.1)
    process = subprocess.Popen(
        ["/bin/sh", "-c", "echo one; sleep 1; echo two"], stdout=subprocess.PIPE, text=True
    )
    assert progress.output_of(process) == "one\ntwo\n"
    assert process.returncode == 0
    assert "    0:01\n" in sys.stderr.getvalue()


def test_an_interrupt_ends_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(progress.Elapsed, "tick", interrupt)
    process = subprocess.Popen(["/bin/sh", "-c", "exec sleep 60"], stdout=subprocess.PIPE)
    with pytest.raises(KeyboardInterrupt):
        progress.output_of(process)
    assert process.returncode == -9

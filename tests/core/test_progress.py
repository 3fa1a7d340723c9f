"""How a wait is shown."""

import io
import subprocess
import sys

import pytest

from launch.core import progress


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

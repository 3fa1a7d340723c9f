"""How a wait is shown."""

import io
import subprocess
import sys

import pytest

from launch.core import progress


def test_what_is_over_at_once_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    process = subprocess.Popen(["/bin/sh", "-c", "echo one"], stdout=subprocess.PIPE, text=True)
    assert progress.wait_for_output(process) == "one\n"
    assert sys.stderr.getvalue() == ""


def test_a_stage_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.Progress("one", 90) as stage:
        for second in range(125):
            clock[0] = 100.0 + second
            stage.tick("reading" if second < 30 else "writing")
        stage.done("2 files")
    assert sys.stderr.getvalue().splitlines() == [
        *("one  0:00 of about 1:30", "one  0:00 of about 1:30  reading", "one  0:30 of about 1:30  writing"),
        *("one  1:30 of about 1:30  writing", "one  2:04  2 files"),
    ]


def test_a_process_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(progress, "WAIT_INTERVAL", 0.1)
    process = subprocess.Popen(
        ["/bin/sh", "-c", "echo one; sleep 1; echo two"], stdout=subprocess.PIPE, text=True
    )
    assert progress.wait_for_output(process) == "one\ntwo\n"
    assert process.returncode == 0
    assert "    0:01\n" in sys.stderr.getvalue()


def test_an_interrupt_ends_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(progress, "WAIT_INTERVAL", 0.1)
    monkeypatch.setattr(progress, "format_duration", interrupt)
    process = subprocess.Popen(["/bin/sh", "-c", "exec sleep 60"], stdout=subprocess.PIPE)
    with pytest.raises(KeyboardInterrupt):
        progress.wait_for_output(process)
    assert process.returncode == -9

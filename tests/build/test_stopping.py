"""Ctrl-C and kill in the commands that look at trees: they end at once, and leave nothing at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List

import pytest

from launch.core import paths
from launch.model import variants

from .. import sample_trees
from ..conftest import HYBRID

COMMANDS = {
    "verify": ["verify"],
    "report": ["report"],
    "package": ["package", "--v", HYBRID],
    "compare": ["compare", "--a", ".", "--b", "."],
}
MEASURE = ("verify", "package")
"""Those that have a process of its own measure files."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    sample_trees.write(tmp_path / "out", variants.find_variant(HYBRID))
    return tmp_path / "out"


def start(command: str, out: Path, python: str = sys.executable) -> "subprocess.Popen[str]":
    words = [word.replace(".", str(out / HYBRID)) for word in COMMANDS[command]]
    if command != "compare":
        words += ["--out", str(out)]
    if command == "package":
        words += ["--to", str(out.parent / "to")]
    return subprocess.Popen(
        [python, "-m", "launch", *words],
        cwd=str(paths.REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def words_of(process: int) -> List[bytes]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def members(group: int) -> List[int]:
    """Return the processes of a group that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its) == group and state not in "ZX":
            found.append(int(entry.parent.name))
    return found


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_nothing_is_left(process: "subprocess.Popen[str]") -> None:
    """What was suspended ends only where somebody ends it, for which the kernel takes a moment."""
    deadline = time.monotonic() + 60
    while members(process.pid):
        assert time.monotonic() < deadline, [words_of(member) for member in members(process.pid)]
        time.sleep(0.01)


def suspend_measuring(process: "subprocess.Popen[str]") -> None:
    """Wait until the command measures, and let the process that does so be at work from then on."""

    def measuring() -> List[int]:
        return [member for member in members(process.pid) if b"launch.verify.ir" in words_of(member)]

    wait_until(lambda: bool(measuring()), process)
    for member in measuring():
        os.kill(member, signal.SIGSTOP)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_early_interrupt_is_said_in_a_word(command: str, out: Path) -> None:
    process = start(command, out, str(Path(sys.base_prefix, "bin", "python3")))
    # It becomes the environment's Python, and has imported nothing then.
    wait_until(lambda: words_of(process.pid)[:1] == [os.fsencode(paths.VENV_PYTHON)], process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines().count("interrupted") == 1
    assert members(process.pid) == []


def test_an_interrupt_while_python_starts_is_said_in_a_word() -> None:
    process = subprocess.Popen(
        [str(paths.PACKAGE / "kit.sh"), "lint"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: b"launch" in words_of(process.pid), process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")


@pytest.mark.parametrize("command", MEASURE)
@pytest.mark.parametrize("to_all", [True, False])
def test_an_interrupt_ends_what_measures(command: str, to_all: bool, out: Path) -> None:
    process = start(command, out)
    suspend_measuring(process)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert_nothing_is_left(process)
    assert not (out.parent / "to" / HYBRID).exists()


@pytest.mark.parametrize("command", MEASURE)
def test_nothing_measures_on_after_a_kill(command: str, out: Path) -> None:
    process = start(command, out)
    suspend_measuring(process)
    process.kill()
    process.wait()
    assert_nothing_is_left(process)
    process.communicate(timeout=60)

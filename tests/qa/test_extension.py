"""NNCF's compiled extension: when it is looked after, and when a run can do without."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List

import pytest

from launch.build import program
from launch.build.jobs import Job
from launch.core import locks, paths
from launch.core.progress import Progress
from launch.core.stamp import Stamp
from launch.qa import arguments, extension
from launch.sources.source import Fork, Registry
from launch.vscode import Invocation

from ..conftest import run

OTHER = "binarized_functions_cpu"
"""NNCF compiles this one, too."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two compiled extensions, as a step with the key ``key`` leaves it."""
    folder = tmp_path / "extensions"
    for name in (extension.NAME, OTHER):
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.so").write_text(f"compiled {name}")
    with extension.hold_extension_lock(folder):
        extension.write_stamp(folder, "key")
    assert extension.is_current(folder, "key")
    return folder


# --- what is known to be current -------------------------------------------------------------------------


def _damage(folder: Path) -> None:
    extension.find_built(folder).write_text(f"COMPILED {extension.NAME}")


def _damage_in_no_time(folder: Path) -> None:
    before = extension.find_built(folder).stat()
    _damage(folder)
    os.utime(extension.find_built(folder), ns=(before.st_atime_ns, before.st_mtime_ns))


def _touch(folder: Path) -> None:
    os.utime(extension.find_built(folder), ns=(0, 0))


def _remove(folder: Path) -> None:
    extension.find_built(folder).unlink()


def _remove_the_other(folder: Path) -> None:
    (folder / OTHER / f"{OTHER}.so").unlink()


def _add(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "new.so").touch()


def _leave_a_lock(folder: Path) -> None:
    (folder / OTHER / "lock").touch()


def _remove_the_stamp(folder: Path) -> None:
    (folder / ".kit-stamp.json").unlink()


def _cut_the_stamp(folder: Path) -> None:
    path = folder / ".kit-stamp.json"
    path.write_text(path.read_text()[:-10])


def _write_another_stamp(folder: Path) -> None:
    (folder / ".kit-stamp.json").write_text("[]")


def _remove_all(folder: Path) -> None:
    """As `make clean` does."""
    subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.parametrize(
    "change",
    [
        *(_damage, _damage_in_no_time, _touch, _remove, _remove_the_other, _add),
        *(_leave_a_lock, _remove_the_stamp, _cut_the_stamp, _write_another_stamp, _remove_all),
    ],
)
def test_a_change_is_seen(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    assert not extension.is_current(folder, "key")
    folder.mkdir(exist_ok=True)
    with extension.hold_extension_lock(folder):
        extension.write_stamp(folder, "key")
    assert extension.is_current(folder, "key")


def test_another_key_is_another_extension(folder: Path) -> None:
    assert not extension.is_current(folder, "another")
    assert not extension.is_current(folder, "")


def test_nobody_waits_to_be_told_that_another_is_at_work(folder: Path) -> None:
    with locks.hold_folder(folder):
        started = time.monotonic()
        assert not extension.is_current(folder, "key")
        assert time.monotonic() - started < 1
    assert extension.is_current(folder, "key")


def test_who_waits_for_another_says_so(folder: Path, capsys: pytest.CaptureFixture) -> None:
    handle = os.open(str(folder), os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    release = threading.Timer(0.5, lambda: os.close(handle))
    started = time.monotonic()
    release.start()
    with extension.hold_extension_lock(folder):
        assert time.monotonic() - started > 0.4
    release.join()
    assert "waiting for another run" in capsys.readouterr().err
    with extension.hold_extension_lock(folder):
        pass
    assert not capsys.readouterr().err


# --- which step a job has --------------------------------------------------------------------------------


class Tree(Fork):
    """A derived tree elsewhere."""

    def __init__(self, tree: Path) -> None:
        super().__init__()
        self._tree = tree
        self.derive("first")

    @property
    def tree(self) -> Path:
        return self._tree

    def derive(self, what: str) -> None:
        self._tree.mkdir(exist_ok=True)
        Stamp(what).write(self._tree / ".kit-stamp.json")


class Runs:
    """Runs a job with a shell script in the interpreter's place, which writes down what would be run."""

    def __init__(self, folder: Path, extensions: Path) -> None:
        self.folder = folder
        self.extensions = extensions
        self.source = Tree(folder / "tree")
        self.python = folder / "python"
        self.python.write_text('#!/bin/sh\necho "$*" >> "$0.calls"\n')
        self.python.chmod(0o755)
        self.env: Dict[str, str] = {"PYTHONPATH": "a", extension.FOLDER: str(extensions)}

    def job(self) -> Job:
        words = ["--model_name_or_path=m", f"--output_dir={self.folder}", "--to_onnx=m.onnx"]
        words += ["--nncf_config=n", "--train_file=t"]
        invocation = Invocation(
            str(self.python), ("run_qa.py",), tuple(words), dict(self.env), str(self.folder)
        )
        return Job("n", invocation, "", [], None, arguments.parse_arguments("run_qa.py", words), self.source)

    def calls(self) -> List[str]:
        """Run the job and return its processes; if the extension was looked after, it leaves a stamp."""
        with Path(os.devnull).open("w") as nowhere:
            progress = Progress("", None)
            program.run_job(self.job(), "test", "a test", progress, nowhere.fileno())
        file = self.folder / "python.calls"
        lines = [line.split() for line in file.read_text().splitlines()]
        file.unlink()
        for words in lines:
            if words[:2] == ["-m", "launch.qa.extension"]:
                with extension.hold_extension_lock(self.extensions):
                    extension.write_stamp(self.extensions, words[2])
        return [words[1 if words[0] == "-m" else 0] for words in lines]


@pytest.fixture
def runs(tmp_path: Path, folder: Path) -> Runs:
    return Runs(tmp_path, folder)


SHORT = ["run_qa.py", "launch.model.sparsity"]
LONG = ["launch.qa.extension", *SHORT]


def test_the_extension_is_looked_after_once(runs: Runs) -> None:
    assert runs.calls() == LONG
    assert runs.calls() == SHORT


@pytest.mark.parametrize("name", ["PYTHONPATH", "CXX", "CUDA_VISIBLE_DEVICES"])
def test_what_is_compiled_from_other_sources_or_otherwise_is_looked_after(runs: Runs, name: str) -> None:
    runs.calls()
    runs.env[name] = "another"
    assert runs.calls() == LONG
    assert runs.calls() == SHORT


def test_a_tree_that_was_derived_anew_is_looked_after(runs: Runs) -> None:
    runs.calls()
    runs.source.derive("second")
    assert runs.calls() == LONG
    assert runs.calls() == SHORT
    runs.env["TERM"] = "another"
    assert runs.calls() == SHORT, "nothing is compiled by its leave"


def test_another_interpreter_is_looked_after(runs: Runs) -> None:
    runs.calls()
    (runs.folder / "below").mkdir()
    other = Runs(runs.folder / "below", runs.extensions)
    other.source = runs.source
    assert other.calls() == LONG


def test_what_a_killed_compiler_left_is_looked_after(runs: Runs) -> None:
    runs.calls()
    extension.find_built(runs.extensions).with_name("lock").touch()
    assert runs.calls() == LONG
    assert runs.calls() == SHORT


def test_without_a_folder_of_its_own_it_is_looked_after(runs: Runs) -> None:
    runs.calls()
    del runs.env[extension.FOLDER]
    assert runs.calls() == LONG


# --- the step itself -------------------------------------------------------------------------------------


def look_after(key: str, extensions: Path) -> "subprocess.CompletedProcess[str]":
    """Run the step on the registry's releases."""
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(paths.VENV / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, Registry().python_path)),
        "CUDA_VISIBLE_DEVICES": "",
        extension.FOLDER: str(extensions),
    }
    return run([sys.executable, "-m", "launch.qa.extension", *filter(None, [key])], env=env)


def times(extensions: Path) -> Dict[str, int]:
    return {
        path.relative_to(extensions).as_posix(): path.stat().st_mtime_ns
        for pattern in ("*/*.o", "*/*.so")
        for path in extensions.glob(pattern)
    }


@pytest.fixture
def compiled(derived_source: Path, shared: Path, tmp_path: Path) -> Path:
    """A copy of the extension that all tests share, which is compiled where no run has done so yet."""
    with locks.hold_lock(shared / "extension.lock", "NNCF's extension"):
        done = look_after("", Registry().extensions)
        assert done.returncode == 0, done.stderr
        shutil.copytree(str(Registry().extensions), str(tmp_path / "extensions"))
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "extensions" / ".kit-stamp.json").unlink()
    return tmp_path / "extensions"


def test_the_step_compiles_what_is_not_current_and_no_more(compiled: Path) -> None:
    first = times(compiled)
    assert len([name for name in first if name.endswith(".so")]) == 2

    stale = extension.find_built(compiled).with_name("lock")
    stale.touch()
    done = look_after("key", compiled)
    assert done.returncode == 0, done.stderr
    assert not stale.exists()
    assert times(compiled) == first
    assert extension.is_current(compiled, "key")

    removed, damaged = (compiled / name / f"{name}.so" for name in (extension.NAME, OTHER))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    removed.unlink()
    assert not extension.is_current(compiled, "key")
    done = look_after("key", compiled)
    assert done.returncode == 0, done.stderr
    assert "compiling NNCF's C++ extension" in done.stderr
    assert extension.is_current(compiled, "key")
    second = times(compiled)
    assert {name for name in first if first[name] != second[name]} == {
        f"{name}/{name}.so" for name in (extension.NAME, OTHER)
    }

    removed.write_bytes(removed.read_bytes()[:1000])
    done = look_after("", compiled)
    assert done.returncode == 0, done.stderr
    assert not extension.is_current(compiled, "key"), "nobody was asked for a stamp"

    third = times(compiled)
    extension.write_stamp(compiled, "key")
    done = look_after("", compiled)
    assert done.returncode == 0, done.stderr
    assert times(compiled) == third, "what was compiled is good, and not taken for damaged"
    assert extension.is_current(compiled, "key"), "a stamp that is true stays"


def test_what_will_be_compiled_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other sources or flags than those that were compiled are said on the terminal, older ones as well."""
    package = tmp_path / "packages" / "nncf"
    source = package / "torch" / "extensions" / "src" / "some.cpp"
    flags = package / "torch" / "quantization" / "extensions.py"
    for path in (package / "__init__.py", source, flags):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "nncf", raising=False)  # which another test may have loaded
    folder = tmp_path / "compiled"
    assert extension.will_compile(folder)
    extension.find_built(folder).parent.mkdir(parents=True)
    extension.find_built(folder).touch()
    assert extension.will_compile(folder), "nobody knows what it was made from"
    extension.write_stamp(folder, "")
    assert not extension.will_compile(folder)
    for path in (source, flags):
        path.write_text("another")
        os.utime(path, (0, 0))
        assert extension.will_compile(folder), path.name
        path.write_text("one")
        assert not extension.will_compile(folder)

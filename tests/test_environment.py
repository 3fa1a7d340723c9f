"""The environment: finding a Python 3.8, the stamp, the steps, and the locks it is made from."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from launch import environment, installer, interpreters, locks, paths, progress
from launch import steps as steps_module
from launch.errors import KitError

LOCK_DIRECTORY = paths.ENVIRONMENT_DATA
ALL_LOCKS = ("installer", "runtime", "report", "dev", "sources", "mo2021", "hub")

# --- finding a Python 3.8 --------------------------------------------------------------------------------

GOOD = {
    "path": "/good/bin/python3.8",
    "implementation": "CPython",
    "version": "3.8.18",
    "major": 3,
    "minor": 8,
    "wide": True,
    "venv": True,
    "headers": "/good/include",
}


def script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + body + "\n")
    path.chmod(0o755)
    return str(path)


def fake(path, **facts):
    """Write a program that answers the probe as an interpreter with these facts does."""
    answer = json.dumps({**GOOD, "path": str(path), **facts})
    return script(path, f"echo a line of sitecustomize\ncat <<'END'\n{answer}\nEND")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without any Python 3.8: PATH has one folder, beside the system's for the scripts' `cat`."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'tools'}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "executable", "")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "sleep", "mkdir", "cp"):
        found = next(folder for folder in ("/bin", "/usr/bin") if Path(folder, name).exists())
        (tools / name).symlink_to(Path(found, name))
    return tmp_path


def pyenv(machine, version):
    return machine / "home/.pyenv/versions" / version / "bin/python3.8"


REAL = sys.executable


@pytest.mark.skipif(sys.version_info[:2] != (3, 8), reason="needs to run on Python 3.8")
def test_the_probe_on_a_real_interpreter():
    found = interpreters.probe(REAL, "this one")
    assert found.version == "{}.{}.{}".format(*sys.version_info)
    assert found.origin == "this one"
    # Not the environment's own python, which the environment's removal would remove.
    assert not Path(found.path).resolve().parent.samefile(paths.VENV / "bin")
    assert interpreters.probe(found.path, "").path == found.path


def test_the_probe_on_a_real_interpreter_of_another_version(monkeypatch):
    monkeypatch.setattr(interpreters, "WANTED", (3, 4))
    with pytest.raises(interpreters.Unusable, match=r"^is CPython 3\.\d+\.\d+"):
        interpreters.probe(REAL, "this one")


def test_a_good_one_on_path(machine):
    path = fake(machine / "bin/python3.8")
    assert interpreters.find() == interpreters.Interpreter(
        path, "3.8.18", "python3.8 on PATH", True, "/good/include"
    )


def test_a_failing_shim_is_passed_over_and_the_newest_patch_is_taken(machine):
    script(machine / "bin/python3.8", "echo 'pyenv: python3.8: command not found' >&2; exit 127")
    for version in ("3.8.2", "3.8.18", "3.8.9"):
        fake(pyenv(machine, version), version=version)
    fake(pyenv(machine, "3.9.18"), version="3.9.18", minor=9)
    assert interpreters.find().path == str(pyenv(machine, "3.8.18"))


def test_a_second_one_on_path_is_taken_when_the_first_fails(machine, monkeypatch):
    script(machine / "bin/python3.8", "exit 1")
    path = fake(machine / "later/python3.8")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{machine / 'later'}")
    assert interpreters.find().path == path


def test_one_that_uv_has_installed(machine):
    folder = machine / "home/.local/share/uv/python"
    fake(folder / "cpython-3.8.9-linux-x86_64-gnu/bin/python3.8", version="3.8.9")
    newest = fake(folder / "cpython-3.8.20-linux-x86_64-gnu/bin/python3.8", version="3.8.20")
    assert interpreters.find().path == newest


def test_no_python_at_all_lists_every_place(machine):
    with pytest.raises(KitError) as error:
        interpreters.find()
    where = error.value.where
    assert "python3.8 on PATH: nothing there" in where
    assert f"pyenv ({machine}/home/.pyenv/versions): nothing there" in where
    assert f"uv ({machine}/home/.local/share/uv/python): nothing there" in where
    assert "uv on PATH" in where
    for way in ("apt install", "pip install uv", "pyenv install 3.8", "PYTHON="):
        assert way in error.value.hint


def test_each_failure_has_its_reason(machine):
    script(machine / "bin/python3.8", "echo broken loader >&2; exit 127")
    fake(pyenv(machine, "3.8.1"), implementation="PyPy")
    fake(pyenv(machine, "3.8.2"), wide=False)
    script(pyenv(machine, "3.8.3"), "echo hello")
    script(pyenv(machine, "3.8.4"), "kill -9 $$")
    pyenv(machine, "3.8.5").parent.mkdir(parents=True)
    pyenv(machine, "3.8.5").write_text("not executable")
    with pytest.raises(KitError) as error:
        interpreters.find()
    lines = error.value.where.splitlines()
    for place, reason in (
        ("bin/python3.8", "does not start: broken loader"),
        ("3.8.1", "is PyPy 3.8.18"),
        ("3.8.2", "is a 32-bit CPython"),
        ("3.8.3", "does not answer as a Python does"),
        ("3.8.4", "does not start: exit status"),
        ("3.8.5", "does not start: Permission denied"),
    ):
        assert any(place in line and reason in line for line in lines), (place, error.value.where)


def test_one_that_hangs_is_given_up(machine, monkeypatch):
    monkeypatch.setattr(interpreters, "PROBE_SECONDS", 0.2)
    script(machine / "bin/python3.8", "exec sleep 60")
    started = time.monotonic()
    with pytest.raises(KitError, match=r"no Python 3\.8") as error:
        interpreters.find()
    assert time.monotonic() - started < 10
    assert "does not answer within 0.2 s" in error.value.where


def test_a_complete_one_goes_before_one_nearer_that_lacks_something(machine):
    fake(machine / "bin/python3.8", venv=False)
    complete = fake(pyenv(machine, "3.8.18"))
    assert interpreters.find().path == complete


def test_one_that_lacks_something_is_better_than_none(machine):
    fake(machine / "bin/python3.8", venv=False, headers="")
    assert interpreters.find().lacks == "ensurepip and Python.h"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"version": "3.9.18", "minor": 9}, "is CPython 3.9.18"),
        ({"implementation": "PyPy"}, "is PyPy 3.8.18"),
    ],
)
def test_a_wrong_requested_one_is_an_error_and_not_replaced(machine, facts, words):
    fake(machine / "bin/python3.8")
    wrong = fake(machine / "elsewhere/python3", **facts)
    with pytest.raises(KitError, match=words) as error:
        interpreters.find(wrong)
    assert error.value.where == f"PYTHON={wrong}"
    assert error.value.hint


def test_a_requested_one_that_is_not_there(machine):
    fake(machine / "bin/python3.8")
    with pytest.raises(KitError, match=r"no program called 'python3\.08'"):
        interpreters.find("python3.08")
    with pytest.raises(KitError, match="No such file"):
        interpreters.find("/no/such/python3.8")


def test_a_requested_python_2_is_called_that(machine):
    old = script(machine / "bin/python2", "echo 'Unknown option: -I' >&2; exit 2")
    with pytest.raises(KitError, match=f"{old} is a Python 2"):
        interpreters.find("python2")


def test_a_requested_one_by_name_and_by_path(machine, monkeypatch):
    nearer = fake(machine / "bin/python3.8")
    other = fake(machine / "bin/my-python")
    assert interpreters.find("my-python").path == other
    monkeypatch.chdir(machine)
    assert interpreters.find("bin/python3.8").path == nearer
    assert interpreters.find("bin/python3.8").origin == "PYTHON=bin/python3.8"


def test_uv_fetches_one(machine, capsys):
    ready = fake(machine / "ready/python3.8")
    target = machine / "home/.local/share/uv/python/cpython-3.8.20-linux-x86_64-gnu/bin"
    script(
        machine / "bin/uv",
        f'[ "$*" = "python install 3.8" ] || exit 9\nmkdir -p {target}\ncp {ready} {target}/python3.8',
    )
    assert interpreters.find().origin.startswith("uv (")
    assert "No Python 3.8 here; uv is fetching one" in capsys.readouterr().err


def test_uv_cannot_fetch_one(machine, capsys):
    script(machine / "bin/uv", "echo error: no download >&2; echo cause: dns >&2; exit 1")
    with pytest.raises(KitError) as error:
        interpreters.find()
    assert "uv python install 3.8: error: no download; cause: dns" in error.value.where
    assert "uv is fetching" in capsys.readouterr().err


# --- the stamp -------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with small locks and no environment."""
    repository = tmp_path / "checkout"
    data = repository / "env"
    data.mkdir(parents=True)
    (data / "installer.lock").write_text("uv==1 \\\n    --hash=sha256:aa\n    # via -r installer.in\n")
    (data / "runtime.lock").write_text(
        "# what\na==1 \\\n    --hash=sha256:bb\n    # via x\nb==2 \\\n    --hash=sha256:cc\n"
    )
    (data / "report.lock").write_text("a==1 --hash=sha256:bb\n")
    (data / "dev.lock").write_text("a==1 \\\n    --hash=sha256:bb\n")
    monkeypatch.setattr(paths, "REPOSITORY", repository)
    monkeypatch.setattr(paths, "ENVIRONMENT_DATA", data)
    monkeypatch.setattr(paths, "VENV", repository / ".venv")
    monkeypatch.setattr(paths, "VENV_PYTHON", repository / ".venv/bin/python")
    monkeypatch.setattr(paths, "BUILD", repository / "build")
    monkeypatch.setattr(environment, "FREE_BYTES", 0)
    return repository


class Steps:
    """What stands in for pip and uv: remembers the steps and makes what they would make."""

    def __init__(self):
        self.steps = []
        self.fail_at = None
        self.stamped = []

    def run(self, steps, doing, command, **_):
        steps.say(doing)
        self.steps.append(doing)
        self.stamped.append(environment._stamp_file().exists())
        if self.fail_at is not None and self.fail_at in doing:
            raise KitError("no network")
        if "making" in doing:
            script(paths.VENV_PYTHON, "")


@pytest.fixture
def steps(checkout, monkeypatch):
    recorder = Steps()
    monkeypatch.setattr(
        steps_module.Steps,
        "run",
        lambda self, doing, command, **more: recorder.run(self, doing, command, **more),
    )
    monkeypatch.setattr(environment, "uv_environment", lambda *_: {})
    monkeypatch.setattr(environment, "uv_at_hand", lambda *_: "")
    monkeypatch.setattr(environment, "compiler", lambda: "c++")
    recorder.python = fake(checkout.parent / "python/python3.8")
    recorder.other = fake(checkout.parent / "other/python3.8", version="3.8.9")
    monkeypatch.setattr(interpreters, "_places", lambda: iter([("here", [recorder.python])]))
    return recorder


def words(recorder):
    """The steps since the last call, by their first word."""
    taken, recorder.steps = [step.split()[0] for step in recorder.steps], []
    return taken


NEW = ["making", "installing", "installing", "trying"]
SYNC = NEW[1:]


def test_a_new_environment(steps, checkout, capsys):
    assert not environment.is_ready()
    assert environment.ensure() is True
    assert words(steps) == NEW
    assert environment.is_ready()
    assert json.loads((checkout / ".venv/.kit-stamp.json").read_text())["python"] == {
        "version": "3.8.18",
        "path": steps.python,
    }
    terminal = capsys.readouterr().err
    assert re.search(r"^\[ +\d+\.\d s\] setup: making .*\.venv with Python 3\.8\.18 \(.*\)$", terminal, re.M)
    assert "installing 3 packages" in terminal
    assert (checkout / "build/log/setup.log").read_text() == terminal


def test_a_second_time_there_is_nothing_to_do_and_nothing_is_started(steps, monkeypatch):
    environment.ensure()
    words(steps)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(locks, "exclusive", None)
    assert environment.ensure() is False
    assert environment.ensure(steps.python) is False
    assert words(steps) == []


def test_up_to_date_is_known_in_milliseconds(steps, monkeypatch):
    for name in environment.LOCKS:
        (paths.ENVIRONMENT_DATA / name).write_bytes((LOCK_DIRECTORY / name).read_bytes())
    environment.ensure()
    started = time.monotonic()
    assert environment.is_ready()
    assert time.monotonic() - started < 0.5


def test_comments_in_a_lock_do_not_count(steps):
    environment.ensure()
    lock = paths.ENVIRONMENT_DATA / "runtime.lock"
    lock.write_text("# new head\n\n" + lock.read_text().replace("# via x", "# via y, z") + "\n\n# end\n")
    assert environment.is_ready()


@pytest.mark.parametrize("change", [("b==2", "b==3"), ("sha256:cc", "sha256:dd"), ("b==2", "b2==2")])
def test_a_changed_pin_counts_and_keeps_the_environment(steps, change):
    environment.ensure()
    words(steps)
    (paths.VENV / "kept").touch()
    lock = paths.ENVIRONMENT_DATA / "runtime.lock"
    lock.write_text(lock.read_text().replace(*change))
    assert not environment.is_ready()
    assert environment.ensure() is True
    assert words(steps) == SYNC
    assert not any(steps.stamped), "the stamp goes before the first step"
    assert (paths.VENV / "kept").exists()
    assert environment.is_ready()


@pytest.mark.parametrize("name", environment.LOCKS)
def test_each_lock_counts(steps, name):
    environment.ensure()
    lock = paths.ENVIRONMENT_DATA / name
    lock.write_text(lock.read_text() + "c==1 --hash=sha256:ee\n")
    assert not environment.is_ready()


def test_a_missing_lock_is_a_user_error(checkout):
    (paths.ENVIRONMENT_DATA / "dev.lock").unlink()
    with pytest.raises(KitError, match="lock cannot be read") as error:
        environment.lock_digest("dev.lock")
    assert "dev.lock" in error.value.where


@pytest.mark.parametrize("step", ["making", "installer", "3 packages", "trying"])
def test_interrupted_at_any_step_it_starts_over(steps, step, capsys):
    steps.fail_at = step
    with pytest.raises(KitError, match="no network"):
        environment.ensure()
    assert not environment.is_ready()
    steps.fail_at = None
    paths.VENV.mkdir(exist_ok=True)
    (paths.VENV / "half").touch()
    words(steps)
    assert environment.ensure() is True
    assert words(steps) == NEW
    assert not (paths.VENV / "half").exists()
    assert "left by a setup that did not finish" in capsys.readouterr().err
    assert environment.is_ready()


def test_a_sync_that_fails_leaves_no_stamp(steps):
    environment.ensure()
    (paths.ENVIRONMENT_DATA / "dev.lock").write_text("a==1 --hash=sha256:bc\n")
    steps.fail_at = "3 packages"
    with pytest.raises(KitError):
        environment.ensure()
    (paths.ENVIRONMENT_DATA / "dev.lock").write_text("a==1 \\\n    --hash=sha256:bb\n")
    assert not environment.is_ready()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"python": 1}', '{"locks": {}}'])
def test_a_damaged_stamp_is_none(steps, content):
    environment.ensure()
    environment._stamp_file().write_text(content)
    assert not environment.is_ready()
    words(steps)
    assert environment.ensure() is True
    assert words(steps) == NEW


def test_a_lost_interpreter_is_noticed_and_replaced(steps, monkeypatch):
    environment.ensure()
    Path(steps.python).unlink()
    assert not environment.is_ready()
    words(steps)
    monkeypatch.setattr(interpreters, "_places", lambda: iter([("here", [steps.other])]))
    assert environment.ensure() is True
    assert words(steps) == NEW


def test_an_environment_without_python_is_not_ready(steps):
    environment.ensure()
    paths.VENV_PYTHON.unlink()
    assert not environment.is_ready()


def test_a_moved_checkout_is_not_ready(steps, checkout, monkeypatch):
    environment.ensure()
    moved = checkout.parent / "moved"
    checkout.rename(moved)
    monkeypatch.setattr(paths, "ENVIRONMENT_DATA", moved / "env")
    monkeypatch.setattr(paths, "VENV", moved / ".venv")
    monkeypatch.setattr(paths, "VENV_PYTHON", moved / ".venv/bin/python")
    assert not environment.is_ready()


def test_another_interpreter_makes_it_again(steps):
    environment.ensure()
    words(steps)
    assert environment.ensure(steps.other) is True
    assert words(steps) == NEW
    assert environment.ensure() is False, "the one that was asked for is kept"
    (paths.ENVIRONMENT_DATA / "dev.lock").write_text("a==1 --hash=sha256:bc\n")
    assert environment.ensure() is True
    assert words(steps) == SYNC


def test_the_same_interpreter_by_another_name_is_the_same(steps, checkout):
    environment.ensure()
    link = checkout / "python-link"
    link.symlink_to(steps.python)
    assert environment.ensure(str(link)) is False


def test_a_wrong_requested_interpreter_is_an_error_even_when_ready(steps, checkout):
    environment.ensure()
    wrong = fake(checkout / "python3.9", version="3.9.1", minor=9)
    with pytest.raises(KitError, match=r"CPython 3\.9\.1"):
        environment.ensure(wrong)
    assert environment.is_ready()


@pytest.mark.parametrize(
    ("facts", "message", "package"),
    [({"venv": False}, "no ensurepip", "python3.8-venv"), ({"headers": ""}, "no Python.h", "python3.8-dev")],
)
def test_what_the_interpreter_lacks_is_said_before_anything_is_removed(steps, facts, message, package):
    environment.ensure()
    fake(Path(steps.other), **facts)
    with pytest.raises(KitError, match=message) as error:
        environment.ensure(steps.other)
    assert package in error.value.hint
    assert steps.other in error.value.where
    assert environment.is_ready()


def test_too_little_space(steps, monkeypatch):
    monkeypatch.setattr(environment, "FREE_BYTES", 10**18)
    with pytest.raises(KitError, match="too little free disk space"):
        environment.ensure()


def test_a_link_to_another_disk_stays(steps, checkout):
    elsewhere = checkout.parent / "elsewhere"
    (elsewhere / "lib/deep").mkdir(parents=True)
    (elsewhere / "file").touch()
    paths.VENV.symlink_to(elsewhere)
    environment.ensure()
    assert paths.VENV.is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == [".kit-stamp.json", "bin"]


def test_a_compiler_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(KitError, match=r"no C\+\+ compiler") as error:
        environment.compiler()
    assert "apt install g++" in error.value.hint
    script(tmp_path / "g++", "")
    assert environment.compiler() == "g++"
    script(tmp_path / "c++", "")
    assert environment.compiler() == "c++"
    monkeypatch.setenv("CXX", "ccache g++")
    with pytest.raises(KitError, match="CXX"):
        environment.compiler()
    script(tmp_path / "ccache", "")
    assert environment.compiler() == "ccache g++"


def test_a_second_setup_waits_and_then_has_nothing_to_do(steps, checkout, monkeypatch, capsys):
    (checkout / "build").mkdir()
    lock = (checkout / "build/setup.lock").open("w")
    lock.write("4711\n")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)
    wait = fcntl.flock

    def flock(descriptor, operation):
        if operation == fcntl.LOCK_EX:
            # The other setup ends while this one waits.
            script(paths.VENV_PYTHON, "")
            environment._write_stamp(
                environment.Stamp(steps.python, "3.8.18", str(paths.VENV), environment._digests())
            )
            lock.close()
        wait(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert environment.ensure() is False
    assert "(pid 4711) works on the environment" in capsys.readouterr().err
    assert words(steps) == []


def test_a_checkout_that_cannot_be_written_to(steps, checkout):
    (checkout / "build").write_text("a file in the way")
    with pytest.raises(KitError, match="cannot be written to"):
        environment.ensure()


# --- one step --------------------------------------------------------------------------------------------


@pytest.fixture
def real_steps(checkout):
    log = checkout / "setup.log"
    with log.open("w") as stream, (checkout / "lock").open("w") as lock:
        yield steps_module.Steps(stream, log, lock.fileno(), time.monotonic())


def test_a_step_writes_everything_to_the_log(real_steps, checkout, capsys):
    real_steps.run("working", ["/bin/sh", "-c", "echo one; echo two >&2; printf three; echo $PIP_USER"])
    assert (checkout / "setup.log").read_text().splitlines()[1:] == ["one", "two", "three0"]
    assert "one" not in capsys.readouterr().err


def test_a_failing_step_shows_its_end_and_its_log(real_steps):
    with pytest.raises(KitError, match=r"while working \(exit status 3\)") as error:
        real_steps.run("working", ["/bin/sh", "-c", "for i in $(seq 30); do echo line $i; done; exit 3"])
    assert "setup.log" in error.value.where
    assert error.value.hint.splitlines()[1:] == [f"line {number}" for number in range(16, 31)]


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("  cause: dns error", "route to a package index"),
        ("ERROR: No matching distribution found for uv", "route to a package index"),
        ("No space left on device (os error 28)", "disk is full"),
        ("Hash mismatch for torch", "not the locked one"),
    ],
)
def test_a_failing_step_says_what_to_do(real_steps, output, advice):
    with pytest.raises(KitError) as error:
        real_steps.run("working", ["/bin/sh", "-c", f"echo '{output}'; exit 1"])
    assert advice in error.value.hint


def test_uvs_errors_are_not_broken_into_lines(real_steps):
    name = " ".join(["no such file"] * 20)
    uv = str(Path(REAL).with_name("uv"))
    with pytest.raises(KitError) as error:
        real_steps.run("working", [uv, "pip", "compile", name], downloads=True)
    assert name in error.value.hint


def test_a_step_whose_program_is_missing(real_steps):
    with pytest.raises(KitError) as error:
        real_steps.run("working", ["/no/such/program"])
    assert "/no/such/program: No such file" in error.value.hint


def test_a_step_does_not_see_another_environment(real_steps, checkout, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/elsewhere")
    real_steps.run("working", ["/bin/sh", "-c", "env"], environment={"EXTRA": "yes"})
    log = (checkout / "setup.log").read_text()
    assert "/elsewhere" not in log
    assert "EXTRA=yes" in log


def test_the_lock_is_held_by_a_step_that_outlives_the_setup(checkout):
    """A setup killed outright leaves its installer working; no other may start beside that."""
    file = checkout / "lock"
    with file.open("w") as lock, (checkout / "log").open("w") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        setup = steps_module.Steps(log, checkout / "log", lock.fileno(), time.monotonic())
        setup.run(
            "leaving one behind", ["/bin/sh", "-c", f"sleep 1 >/dev/null 2>&1 & echo $! > {checkout}/pid"]
        )
    with file.open("w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_an_interrupt_ends_the_step(real_steps, checkout, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(real_steps, "_write", interrupt)
    monkeypatch.setattr(real_steps, "say", lambda _: None)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        real_steps.run("working", ["/bin/sh", "-c", "echo; echo line; exec sleep 60"])
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("10%\r\x1b[2K20%\r\x1b[2K\x1b[1mdone\x1b[0m\r", "done"),
        (
            "\x1b[2K\x1b[37m⠙\x1b[0m \x1b[2mResolving...      \x1b[0m\x1b[31merror\x1b[0m: no  route\r",
            "error: no  route",
        ),
        (" + torch==1.9.1", " + torch==1.9.1"),
    ],
)
def test_the_log_has_what_a_terminal_would_still_show(line, seen):
    assert steps_module.visible(line) == seen


BARS = (
    "[ -t 2 ] || exit 9; echo first; printf '\\r\\033[2K 4.1/17.6 MB 1 MB/s\\r\\033[2K'; sleep {};"
    " printf '\\033[2K\\033[1mdone\\033[0m\\n'"
)
"""A program that draws a progress bar, on a terminal only."""


def test_downloads_are_counted_where_there_is_no_terminal(real_steps, checkout, monkeypatch, capsys):
    monkeypatch.setattr(progress.Elapsed, "INTERVAL", 0.1)
    real_steps.run("working", ["/bin/sh", "-c", BARS.format(1)], downloads=True)
    announced, *below = capsys.readouterr().err.splitlines()
    assert announced.endswith("setup: working")
    assert "    0:01  4.1 MB of 17.6 MB" in below
    assert (checkout / "setup.log").read_text().splitlines()[1:] == ["first", "done"]


def test_a_download_works_where_no_terminal_is_to_be_had(real_steps, checkout, monkeypatch):
    def none():
        raise OSError("out of pty devices")

    monkeypatch.setattr(steps_module.pty, "openpty", none)
    real_steps.run("working", ["/bin/sh", "-c", "[ -t 2 ] || echo no terminal"], downloads=True)
    assert (checkout / "setup.log").read_text().splitlines()[1:] == ["no terminal"]


def test_downloads_are_counted_on_a_terminal_in_a_line_that_goes_away(checkout):
    """A real terminal, which only a process of its own can have as standard error."""
    import pty

    program = (
        "import sys, time; from pathlib import Path; from launch.steps import Steps\n"
        "log = open('log', 'w'); lock = open('lock', 'w')\n"
        "steps = Steps(log, Path('log'), lock.fileno(), time.monotonic())\n"
        f"steps.run('working', ['/bin/sh', '-c', {BARS.format(2)!r}], downloads=True)"
    )
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [REAL, "-c", program],
        cwd=str(checkout),
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)},
    )
    os.close(slave)
    assert child.wait(30) == 0
    seen = os.read(master, 65536).decode()
    os.close(master)
    first, *rewritten, last = re.split("\r\x1b\\[K|\r\n", seen)
    assert first.endswith("setup: working")
    assert "    0:01  4.1 MB of 17.6 MB" in rewritten
    assert last == "", "nothing stays below the step"
    assert "4.1/17.6" not in seen
    assert (checkout / "log").read_text().splitlines()[1:] == ["first", "done"]


# --- pip out of its wheel, and a uv that is here ---------------------------------------------------------


def test_pip_out_of_the_interpreters_wheel_works(real_steps, checkout):
    interpreter = interpreters.probe(REAL, "this one")
    if not interpreter.pip:
        pytest.skip("this interpreter has no pip of its own")
    environment._new_venv(real_steps, interpreter)
    done = subprocess.run([str(paths.VENV_PYTHON), "-I", "-m", "pip", "list"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, version, *more = done.stdout.split()[4:]
    assert (name, more) == ("pip", [])
    assert f"pip-{version}-" in Path(interpreter.pip).name


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("uv 0.13.9", True),
        ("uv 0.13.10 (abc 2026-01-01 x86_64)", True),
        ("uv 0.13.8", False),
        ("uv 0.14.0", False),
        ("uv 1.13.9", False),
        ("uv 0.13.9-rc.1", False),
        ("uv", False),
    ],
)
def test_a_uv_on_path_is_taken_where_it_does_what_the_locked_one_does(machine, answer, good):
    uv = script(machine / "bin/uv", f"echo '{answer}'")
    assert installer.uv_at_hand("0.13.9") == (uv if good else "")


def test_a_uv_that_does_not_start_is_none(machine):
    assert installer.uv_at_hand("0.13.9") == ""
    script(machine / "bin/uv", "echo uv 0.13.9; exit 1")
    assert installer.uv_at_hand("0.13.9", ["/no/such/uv"]) == ""


def test_a_uv_that_hangs_is_none(machine, monkeypatch):
    monkeypatch.setattr(installer, "ANSWER_SECONDS", 0.2)
    script(machine / "bin/uv", "echo uv 0.13.9; sleep 20")
    started = time.monotonic()
    assert installer.uv_at_hand("0.13.9") == ""
    assert time.monotonic() - started < 10


def test_the_environments_own_uv_goes_before_one_on_path(machine):
    script(machine / "bin/uv", "echo uv 0.13.10")
    own = script(machine / "venv/uv", "echo uv 0.13.9")
    assert installer.uv_at_hand("0.13.9", [own]) == own


def test_with_a_uv_here_none_is_installed_first(steps, machine_uv):
    environment.ensure()
    assert words(steps) == ["making", "installing", "trying"]


def test_a_uv_here_that_fails_is_replaced_by_the_locked_one(steps, machine_uv, capsys):
    steps.fail_at = "with /usr/bin/uv"
    environment.ensure()
    assert words(steps) == ["making", "installing", "installing", "installing", "trying"]
    assert "/usr/bin/uv has failed; trying once more, with the uv of the lock" in capsys.readouterr().err
    assert environment.is_ready()


def test_the_locked_uv_is_not_tried_twice(steps):
    steps.fail_at = "3 packages"
    with pytest.raises(KitError):
        environment.ensure()
    assert words(steps) == ["making", "installing", "installing"]


@pytest.fixture
def machine_uv(monkeypatch):
    monkeypatch.setattr(environment, "uv_at_hand", lambda *_: "/usr/bin/uv")


# --- pip's settings, for uv ------------------------------------------------------------------------------


def test_pip_settings_in_pips_own_order():
    listing = (
        "global.index-url='https://global.example/simple'\n"
        "install.index-url='https://install.example/simple'\n"
        "global.cert='/global.pem'\n"
        ":env:.cert='/env.pem'\n"
        ":env:.timeout=''\n"
        "download.proxy='http://other.example'\n"
        "a warning of pip's\n"
    )
    assert installer.pip_settings(listing) == {
        "index-url": "https://install.example/simple",
        "cert": "/env.pem",
    }


def test_pips_settings_become_uvs(tmp_path):
    pip = {"index-url": "https://mirror.example/simple", "cert": "/ca.pem", "default-timeout": "180"}
    assert installer.uv_settings(pip, {}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_HTTP_TIMEOUT": "180",
    }
    assert installer.uv_settings({"cert": str(tmp_path)}, {}) == {"SSL_CERT_DIR": str(tmp_path)}


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_the_user_says_to_uv_stays(variable):
    assert (
        installer.uv_settings({"index-url": "https://mirror.example"}, {variable: "https://own.example"})
        == {}
    )


def test_other_indexes_are_not_passed_on():
    assert installer.uv_settings({"extra-index-url": "https://x.example", "find-links": "/wheels"}, {}) == {}


# --- the locks -------------------------------------------------------------------------------------------


def entries(name):
    """Return a lock's entries: (name, version, hashes), from the text itself and not by the kit's parser."""
    text = (LOCK_DIRECTORY / f"{name}.lock").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    found = []
    for logical in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        requirement, *options = logical.split()
        found.append((requirement, options))
    return found


def locked(name):
    return {canonicalize_name(entry.split("==")[0]): entry.split("==")[1] for entry, _ in entries(name)}


def direct(name):
    """Return the (requirement, comment) of each line of a .in file that names a package."""
    found = []
    for line in (LOCK_DIRECTORY / f"{name}.in").read_text().splitlines():
        requirement, _, comment = line.partition("#")
        if requirement.strip() and not requirement.startswith("-"):
            found.append((Requirement(requirement.strip()), comment.strip()))
    return found


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_every_line_of_a_lock_is_pinned_and_hashed(name):
    assert entries(name)
    for requirement, options in entries(name):
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9A-Za-z.]*", requirement), requirement
        assert options, f"{requirement} has no hash"
        for option in options:
            assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option), (requirement, option)
    assert len(locked(name)) == len(entries(name)), "a package is there twice"


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_the_kit_reads_a_lock_as_it_stands(name):
    pins = environment.pins(f"{name}.lock")
    assert {canonicalize_name(package): version for package, version in pins.items()} == locked(name)


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_a_lock_has_what_its_source_asks_for(name):
    assert direct(name)
    for requirement, _ in direct(name):
        version = locked(name).get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in {name}.lock"
        assert requirement.specifier.contains(version, prereleases=True), (str(requirement), version)


def test_no_excluded_package_is_locked():
    excluded = {canonicalize_name(requirement.name) for requirement in exclusions()}
    assert excluded
    assert not excluded & set(locked("runtime"))


def exclusions():
    lines = (LOCK_DIRECTORY / "exclude.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_exclusions_never_apply():
    for requirement in exclusions():
        assert requirement.marker is not None
        assert not requirement.marker.evaluate(), requirement


def test_locks_agree():
    for one, other in (("runtime", "dev"), ("runtime", "installer"), ("dev", "installer")):
        first, second = locked(one), locked(other)
        shared = set(first) & set(second)
        assert {name: first[name] for name in shared} == {name: second[name] for name in shared}, (one, other)


def comments_of(name):
    """Return each direct dependency with its reason: its own comment, or the comment line above its block."""
    above = ""
    for line in (LOCK_DIRECTORY / f"{name}.in").read_text().splitlines():
        requirement, _, comment = line.partition("#")
        if not line.strip():
            above = ""
        elif not requirement.strip():
            above = comment.strip()
        elif not requirement.startswith("-"):
            yield requirement.strip(), comment.strip() or above


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_every_direct_dependency_has_a_reason(name):
    for requirement, reason in comments_of(name):
        assert len(reason) > 8, f"{requirement} in {name}.in: why?"


def test_sources_are_never_installed():
    installed = set(locked("installer")) | set(locked("runtime")) | set(locked("dev"))
    assert not installed & set(locked("sources"))

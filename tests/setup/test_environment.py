"""The environment: finding a Python 3.8, the stamp, the steps, and the locks it is made from."""

import ast
import dataclasses
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from launch.core import files, paths, progress
from launch.core.errors import KitError
from launch.core.files import Stamp
from launch.core.machine import check_place
from launch.setup import environment, installer, interpreters, requirements
from launch.setup import settings as uv_settings
from launch.setup import steps as steps_module
from launch.setup.environment import Venv

LOCK_DIRECTORY = paths.ENVIRONMENT_DATA
ALL_LOCKS = ("installer", "runtime", "report", "dev", "sources", "mo2021", "hub", "runtimes")

# --- finding a Python 3.8 --------------------------------------------------------------------------------

GOOD = {
    "path": "/good/bin/python3.8",
    "implementation": "CPython",
    "version": "3.8.18",
    "lacks": [],
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
REAL_UV = installer.find_uv()


@pytest.mark.skipif(sys.version_info[:2] != (3, 8), reason="needs to run on Python 3.8")
def test_the_probe_on_a_real_interpreter():
    found = interpreters.probe_interpreter(REAL)
    assert found.version == "{}.{}.{}".format(*sys.version_info)
    # Not the environment's own python, which the environment's removal would remove.
    assert not Path(found.path).resolve().parent.samefile(paths.VENV / "bin")
    assert interpreters.probe_interpreter(found.path).path == found.path


def test_the_probe_on_a_real_interpreter_of_another_version():
    with pytest.raises(interpreters.Unusable, match=r"^is CPython 3\.\d+\.\d+"):
        interpreters.probe_interpreter(REAL, ("3.4", "3.5"))


def test_a_good_one_on_path(machine):
    path = fake(machine / "bin/python3.8")
    assert interpreters.find_interpreter() == (path, "3.8.18")


def test_a_failing_shim_is_passed_over_and_the_newest_patch_is_taken(machine):
    script(machine / "bin/python3.8", "echo 'pyenv: python3.8: command not found' >&2; exit 127")
    for version in ("3.8.2", "3.8.18", "3.8.9"):
        fake(pyenv(machine, version), version=version)
    fake(pyenv(machine, "3.9.18"), version="3.9.18")
    assert interpreters.find_interpreter().path == str(pyenv(machine, "3.8.18"))


def test_a_second_one_on_path_is_taken_when_the_first_fails(machine, monkeypatch):
    script(machine / "bin/python3.8", "exit 1")
    path = fake(machine / "later/python3.8")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{machine / 'later'}")
    assert interpreters.find_interpreter().path == path


def managed(machine):
    """Return where uv has its Pythons 3.8: the folder of one."""
    return machine / "home/.local/share/uv/python/cpython-3.8.20-linux-x86_64-gnu/bin/python3.8"


UV = """case "$*" in
"python install 3.8") echo $UV_PYTHON_INSTALL_BIN; mkdir -p {folder} && cp {ready} {have} ;;
*) exit 9 ;;
esac"""


def uv_that_fetches(machine):
    have = managed(machine)
    fake(have)
    ready = have.rename(machine / "ready")
    return script(machine / "bin/uv", UV.format(have=have, folder=have.parent, ready=ready))


def fetch(uv, tried=(), versions=interpreters.VERSIONS):
    with Path(os.devnull).open() as lock:
        steps = steps_module.Steps(Path(uv).with_name("log"), lock.fileno())
        return interpreters.fetch_interpreter(uv, steps, list(tried), versions)


def test_one_that_uv_has_installed(machine):
    path = fake(managed(machine), version="3.8.20")
    assert interpreters.find_interpreter() == (path, "3.8.20")


def test_of_several_wanted_versions_the_first_is_the_best(machine, monkeypatch):
    monkeypatch.setattr(sys, "executable", REAL)  # a 3.8, which is not wanted
    found = {}
    for version in ("3.8.18", "3.11.7", "3.12.1"):
        path = pyenv(machine, version).with_name("python" + version.rpartition(".")[0])
        found[version] = fake(path, version=version)
    for wanted, version in ((("3.12", "3.11"), "3.12.1"), (("3.13", "3.11", "3.12"), "3.11.7")):
        assert interpreters.find_interpreter(versions=wanted).path == found[version]
    tried = []
    assert interpreters.find_interpreter("", tried, ("3.14", "3.13")) is None
    assert tried[1] == "python3.14 or python3.13 on PATH: nothing there"


def test_where_no_later_one_is_uv_fetches_the_best(machine):
    uv = script(machine / "bin/uv", "echo error: it is not to be had: $* >&2; exit 2")
    with pytest.raises(KitError, match=r"no Python 3\.13 or 3\.12 here") as caught:
        fetch(uv, ["pyenv: nothing there"], ("3.13", "3.12"))
    assert caught.value.where.splitlines()[-1].endswith("it is not to be had: python install 3.13")
    assert "put one on PATH, as python3.13" in caught.value.hint


def test_no_python_at_all_lists_every_place(machine):
    tried = []
    assert interpreters.find_interpreter("", tried) is None
    assert tried == [
        f"{place}: nothing there" for place in ("the running interpreter", "python3.8 on PATH", "pyenv", "uv")
    ]


def test_each_failure_has_its_reason(machine):
    script(machine / "bin/python3.8", "echo broken loader >&2; exit 127")
    fake(pyenv(machine, "3.8.1"), implementation="PyPy")
    script(pyenv(machine, "3.8.3"), "echo hello")
    script(pyenv(machine, "3.8.4"), "kill -9 $$")
    pyenv(machine, "3.8.5").parent.mkdir(parents=True)
    pyenv(machine, "3.8.5").write_text("not executable")
    fake(pyenv(machine, "3.8.6"), lacks=["bz2", "lzma"])
    lines = []
    assert interpreters.find_interpreter("", lines) is None
    for name, reason in (
        ("bin/python3.8", "does not start: broken loader"),
        ("3.8.1", "is PyPy 3.8.18"),
        ("3.8.3", "does not answer as a Python does"),
        ("3.8.4", "does not start: exit status"),
        ("3.8.5", "does not start: Permission denied"),
        ("3.8.6", "has no bz2 and no lzma"),
    ):
        assert any(name in line and reason in line for line in lines), (name, lines)


def test_one_that_hangs_is_given_up(machine, monkeypatch):
    monkeypatch.setattr(interpreters, "PROBE_SECONDS", 0.2)
    script(machine / "bin/python3.8", "exec sleep 60")
    tried = []
    assert interpreters.find_interpreter("", tried) is None
    assert any("does not answer within 0.2 s" in line for line in tried)


def test_a_complete_one_goes_before_one_nearer_that_lacks_something(machine):
    fake(machine / "bin/python3.8", lacks=["ctypes"])
    complete = fake(pyenv(machine, "3.8.18"))
    assert interpreters.find_interpreter().path == complete


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"version": "3.9.18"}, "is CPython 3.9.18"),
        ({"implementation": "PyPy"}, "is PyPy 3.8.18"),
        ({"lacks": ["ssl"]}, "has no ssl"),
    ],
)
def test_a_wrong_requested_one_is_an_error_and_not_replaced(machine, facts, words):
    fake(machine / "bin/python3.8")
    wrong = fake(machine / "elsewhere/python3", **facts)
    with pytest.raises(KitError, match=words) as error:
        interpreters.find_interpreter(wrong)
    assert error.value.where == f"PYTHON={wrong}"
    assert error.value.hint


def test_a_requested_one_that_is_not_there(machine):
    fake(machine / "bin/python3.8")
    with pytest.raises(KitError, match=r"no program called 'python3\.08'"):
        interpreters.find_interpreter("python3.08")
    with pytest.raises(KitError, match="No such file"):
        interpreters.find_interpreter("/no/such/python3.8")


def test_a_requested_python_2_is_called_that(machine):
    old = script(machine / "bin/python2", "echo 'Unknown option: -I' >&2; exit 2")
    with pytest.raises(KitError, match=f"{old} is a Python 2"):
        interpreters.find_interpreter("python2")


def test_a_requested_one_by_name_and_by_path(machine, monkeypatch):
    nearer = fake(machine / "bin/python3.8")
    other = fake(machine / "bin/my-python")
    assert interpreters.find_interpreter("my-python").path == other
    monkeypatch.chdir(machine)
    assert interpreters.find_interpreter("bin/python3.8").path == nearer


def test_uv_fetches_one_into_its_own_folder(machine, capsys):
    found = fetch(uv_that_fetches(machine))
    assert found == (str(managed(machine)), "3.8.18")
    assert "fetching CPython 3.8, 30.0 MB, with" in capsys.readouterr().err
    assert (machine / "bin/log").read_text().splitlines()[1:] == ["0"], "no link in a folder of the person's"


@pytest.mark.parametrize("home", ["", "/dev/null/home", "read-only"])
def test_without_a_home_that_can_be_written_to_uv_stays_in_the_checkout(machine, monkeypatch, home):
    monkeypatch.setattr(paths, "ENVIRONMENTS", machine / "env")
    if home == "read-only":
        monkeypatch.setattr(os, "access", lambda path, mode: mode == os.X_OK)
        home = str(machine)
    for variables in ({"HOME": home}, {}):
        settings = uv_settings.derive_uv_settings(variables)
        assert settings["UV_CACHE_DIR"] == str(machine / "env/uv/cache")
        assert settings["UV_PYTHON_INSTALL_DIR"] == str(machine / "env/uv/python")
    own = {"UV_CACHE_DIR": "/c", "UV_PYTHON_INSTALL_DIR": "/p"}
    assert not set(own) & set(uv_settings.derive_uv_settings(own))


def test_uv_cannot_fetch_one(machine):
    uv = script(machine / "bin/uv", "echo error: no download >&2; echo '  cause: dns' >&2; exit 1")
    with pytest.raises(KitError) as error:
        fetch(uv, ["pyenv: nothing there"])
    assert error.value.where.splitlines() == [
        "pyenv: nothing there",
        "uv python install 3.8: error: no download; cause: dns",
    ]
    for way in ("PYTHON=", "pyenv install", "HTTPS_PROXY", "UV_PYTHON_INSTALL_MIRROR", "uv python dir"):
        assert way in error.value.hint


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
    monkeypatch.setattr(paths, "BUILD", repository / "build")
    monkeypatch.setattr(files, "LOCK", repository / "build/build.lock")
    return repository


class Steps:
    """What stands in for pip and uv: remembers the steps and makes what they would make.

    :param venv: an environment of the checkout's.
    """

    def __init__(self, venv):
        self.venv = venv
        self.steps = []
        self.fail_at = None
        self.stamped = []
        self.real = False

    def run(self, steps, doing, command, **_):
        steps.begin(doing)
        self.steps.append(doing)
        self.stamped.append(self.stamp.exists())
        if self.fail_at is not None and self.fail_at in doing:
            raise KitError("no network")
        if "making" in doing:
            assert "--clear" in command
            if self.real:
                words = [REAL if word == self.python else word for word in command[1:]]
                subprocess.run([REAL_UV, *words], check=True)
            else:
                shutil.rmtree(command[-1], ignore_errors=True)
                script(self.venv.python, "")

    @property
    def stamp(self):
        return self.venv.folder / ".kit-stamp.json"


def environment_in(folder):
    return Venv(folder / ".venv", "the tests", environment.KIT.locks, 0, 0, "import a")


@pytest.fixture
def steps(checkout, monkeypatch):
    recorder = Steps(environment_in(checkout))
    monkeypatch.setattr(
        steps_module.Steps,
        "run",
        lambda self, doing, command, **more: recorder.run(self, doing, command, **more),
    )
    monkeypatch.setattr(installer, "find_uv", lambda: "/usr/bin/uv")
    recorder.python = fake(checkout.parent / "python/python3.8")
    recorder.other = fake(checkout.parent / "other/python3.8", version="3.8.9")
    monkeypatch.setattr(interpreters, "_candidates", lambda *_: iter([("here", recorder.python)]))
    return recorder


def words(recorder):
    """The steps since the last call, by their first word."""
    taken, recorder.steps = [step.split()[0] for step in recorder.steps], []
    return taken


NEW = ["making", "installing", "trying"]
SYNC = NEW[1:]


def test_a_new_environment(steps, checkout, capsys):
    assert not steps.venv.is_ready()
    assert steps.venv.ensure() is True
    assert words(steps) == NEW
    assert steps.venv.is_ready()
    assert Stamp.read(steps.stamp).made["python"] == steps.python
    terminal = capsys.readouterr().err
    assert re.search(r"^\[ +\d+\.\d s\] setup: making .*\.venv with Python 3\.8\.18 \(.*\)$", terminal, re.M)
    assert "installing 2 packages" in terminal
    first, *_, last = terminal.splitlines()
    assert ".venv for the tests takes 0.0 MB; to download: packages, 0.0 MB" in first
    assert re.search(r"is ready: making \S+ \d+\.\d s, installing 2 packages \d+\.\d s, trying", last)
    assert (checkout / "build/log/venv.log").read_text() == terminal


def test_a_second_time_there_is_nothing_to_do_and_nothing_is_started(steps, monkeypatch):
    steps.venv.ensure()
    words(steps)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(files, "hold_lock", None)
    assert steps.venv.ensure() is False
    assert steps.venv.ensure(steps.python) is False
    assert words(steps) == []


def test_up_to_date_is_known_in_milliseconds(steps, monkeypatch):
    for name in environment.KIT.locks:
        (paths.ENVIRONMENT_DATA / name).write_bytes((LOCK_DIRECTORY / name).read_bytes())
    steps.venv.ensure()
    started = time.process_time()
    assert steps.venv.is_ready()
    assert time.process_time() - started < 0.1


def test_comments_in_a_lock_do_not_count(steps):
    steps.venv.ensure()
    lock = paths.ENVIRONMENT_DATA / "runtime.lock"
    lock.write_text("# new head\n\n" + lock.read_text().replace("# via x", "# via y, z") + "\n\n# end\n")
    assert steps.venv.is_ready()


@pytest.mark.parametrize("change", [("b==2", "b==3"), ("sha256:cc", "sha256:dd"), ("b==2", "b2==2")])
def test_a_changed_pin_counts_and_keeps_the_environment(steps, change):
    steps.venv.ensure()
    words(steps)
    (steps.venv.folder / "kept").touch()
    lock = paths.ENVIRONMENT_DATA / "runtime.lock"
    lock.write_text(lock.read_text().replace(*change))
    assert not steps.venv.is_ready()
    assert steps.venv.ensure() is True
    assert words(steps) == SYNC
    assert not any(steps.stamped), "the stamp goes before the first step"
    assert (steps.venv.folder / "kept").exists()
    assert steps.venv.is_ready()


@pytest.mark.parametrize("name", environment.KIT.locks)
def test_each_lock_counts(steps, name):
    steps.venv.ensure()
    lock = paths.ENVIRONMENT_DATA / name
    lock.write_text(lock.read_text() + "c==1 --hash=sha256:ee\n")
    assert not steps.venv.is_ready()


def test_a_missing_lock_is_a_user_error(checkout):
    (paths.ENVIRONMENT_DATA / "dev.lock").unlink()
    with pytest.raises(KitError, match="lock cannot be read") as error:
        requirements.digest_lock("dev.lock")
    assert "dev.lock" in error.value.where


@pytest.mark.parametrize("step", ["making", "2 packages", "trying"])
def test_interrupted_at_any_step_it_starts_over(steps, step):
    steps.fail_at = step
    with pytest.raises(KitError, match="no network"):
        steps.venv.ensure()
    assert not steps.venv.is_ready()
    steps.fail_at = None
    steps.venv.folder.mkdir(exist_ok=True)
    (steps.venv.folder / "half").touch()
    words(steps)
    assert steps.venv.ensure() is True
    assert words(steps) == NEW
    assert not (steps.venv.folder / "half").exists()
    assert steps.venv.is_ready()


def test_a_sync_that_fails_leaves_no_stamp(steps):
    steps.venv.ensure()
    (paths.ENVIRONMENT_DATA / "dev.lock").write_text("a==1 --hash=sha256:bc\n")
    steps.fail_at = "2 packages"
    with pytest.raises(KitError):
        steps.venv.ensure()
    (paths.ENVIRONMENT_DATA / "dev.lock").write_text("a==1 \\\n    --hash=sha256:bb\n")
    assert not steps.venv.is_ready()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"python": 1}', '{"locks": {}}'])
def test_a_damaged_stamp_is_none(steps, content):
    steps.venv.ensure()
    steps.stamp.write_text(content)
    assert not steps.venv.is_ready()
    words(steps)
    assert steps.venv.ensure() is True
    assert words(steps) == NEW


def test_a_lost_interpreter_is_noticed_and_replaced(steps, monkeypatch):
    steps.venv.ensure()
    Path(steps.python).unlink()
    assert not steps.venv.is_ready()
    words(steps)
    monkeypatch.setattr(interpreters, "_candidates", lambda *_: iter([("here", steps.other)]))
    assert steps.venv.ensure() is True
    assert words(steps) == NEW


def test_where_none_is_left_uv_fetches_one(steps, monkeypatch, capsys):
    """What is not here is told before anything is fetched, and what was here is not touched before."""
    steps.venv.ensure()
    Path(steps.python).unlink()
    words(steps)
    monkeypatch.setattr(interpreters, "_candidates", lambda *_: iter([]))
    monkeypatch.setattr(installer, "find_uv", lambda: "")
    told = []

    def fetch_uv(_):
        told.append(capsys.readouterr().err)
        assert steps.stamp.exists()
        return "/fetched/uv"

    def fetch_python(uv, *_):
        assert uv == "/fetched/uv"
        return interpreters.probe_interpreter(steps.other)

    monkeypatch.setattr(installer, "fetch_uv", fetch_uv)
    monkeypatch.setattr(interpreters, "fetch_interpreter", fetch_python)
    assert steps.venv.ensure() is True
    assert "to download: uv, 18.0 MB; CPython 3.8, 30.0 MB; packages, 0.0 MB" in told[0]
    assert words(steps) == NEW
    assert Stamp.read(steps.stamp).made["python"] == steps.other


def test_an_environment_without_python_is_not_ready(steps):
    steps.venv.ensure()
    steps.venv.python.unlink()
    assert not steps.venv.is_ready()


def test_a_moved_checkout_is_not_ready(steps, checkout, monkeypatch):
    steps.venv.ensure()
    moved = checkout.parent / "moved"
    checkout.rename(moved)
    monkeypatch.setattr(paths, "ENVIRONMENT_DATA", moved / "env")
    assert not environment_in(moved).is_ready()


def test_another_interpreter_makes_it_again(steps):
    steps.venv.ensure()
    words(steps)
    assert steps.venv.ensure(steps.other) is True
    assert words(steps) == NEW
    assert steps.venv.ensure() is False, "the one that was asked for is kept"
    (paths.ENVIRONMENT_DATA / "dev.lock").write_text("a==1 --hash=sha256:bc\n")
    assert steps.venv.ensure() is True
    assert words(steps) == SYNC


def test_the_same_interpreter_by_another_name_is_the_same(steps, checkout):
    steps.venv.ensure()
    link = checkout / "python-link"
    link.symlink_to(steps.python)
    assert steps.venv.ensure(str(link)) is False


def test_a_wrong_requested_interpreter_is_an_error_even_when_ready(steps, checkout):
    steps.venv.ensure()
    wrong = fake(checkout / "python3.9", version="3.9.1")
    with pytest.raises(KitError, match=r"CPython 3\.9\.1"):
        steps.venv.ensure(wrong)
    assert steps.venv.is_ready()


def test_a_broken_interpreter_is_refused_before_anything_is_removed(steps):
    steps.venv.ensure()
    fake(Path(steps.other), lacks=["ssl"])
    with pytest.raises(KitError, match="has no ssl"):
        steps.venv.ensure(steps.other)
    assert steps.venv.is_ready()


@pytest.mark.parametrize(
    ("system", "machine_", "words"),
    [
        ("Linux", "aarch64", "Linux on aarch64"),
        ("Darwin", "arm64", "Darwin on arm64"),
        ("Darwin", "x86_64", "Darwin on x86_64"),
        ("Linux", "x86_64", "without glibc"),
    ],
)
def test_another_machine_is_told_first(steps, monkeypatch, system, machine_, words):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine_)
    if "without" in words:
        monkeypatch.setattr(os, "confstr", lambda _: None)
    for first in (steps.venv.ensure, check_place):
        with pytest.raises(KitError, match=words) as error:
            first()
        for missing in ("torch 1.9.1", "openvino 2022.1"):
            assert missing in error.value.what
        assert "runtime.lock" in error.value.where
        assert "container" in error.value.hint
    assert steps.steps == []


def test_too_little_space(steps):
    large = dataclasses.replace(steps.venv, bytes=1e18)
    with pytest.raises(KitError, match="too little free disk space"):
        large.ensure()


def test_a_link_to_another_disk_stays(steps, checkout):
    elsewhere = checkout.parent / "elsewhere"
    (elsewhere / "lib/deep").mkdir(parents=True)
    (elsewhere / "file").touch()
    steps.venv.folder.symlink_to(elsewhere)
    steps.real = True
    steps.venv.ensure()
    assert steps.venv.folder.is_symlink()
    assert (elsewhere / "pyvenv.cfg").exists()
    assert not (elsewhere / "lib/deep").exists()
    assert not (elsewhere / "file").exists()
    assert steps.venv.is_ready()


def test_a_second_setup_waits_and_then_has_nothing_to_do(steps, checkout, monkeypatch, capsys):
    (checkout / "build").mkdir()
    lock = (checkout / "build/build.lock").open("w")
    lock.write("4711\n")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)
    wait = fcntl.flock

    def flock(descriptor, operation):
        if operation == fcntl.LOCK_EX:
            # The other setup ends while this one waits.
            script(steps.venv.python, "")
            Stamp(steps.venv._key(), {"folder": str(steps.venv.folder), "python": steps.python}).write(
                steps.stamp
            )
            lock.close()
        wait(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert steps.venv.ensure() is False
    assert "(pid 4711) works on this checkout" in capsys.readouterr().err
    assert words(steps) == []


def test_a_checkout_that_cannot_be_written_to(steps, checkout):
    (checkout / "build").write_text("a file in the way")
    with pytest.raises(KitError, match="cannot be written to"):
        steps.venv.ensure()


# --- one step --------------------------------------------------------------------------------------------


@pytest.fixture
def real_steps(checkout):
    with (checkout / "lock").open("w") as lock:
        yield steps_module.Steps(checkout / "setup.log", lock.fileno())


def test_a_step_writes_everything_to_the_log(real_steps, checkout, capsys):
    real_steps.run("working", ["/bin/sh", "-c", "echo one; echo two >&2; printf three; echo $PIP_USER"])
    assert (checkout / "setup.log").read_text().splitlines()[1:] == ["one", "two", "three0"]
    assert "one" not in capsys.readouterr().err


def test_a_failing_step_shows_its_end_and_its_log(real_steps):
    with pytest.raises(KitError, match=r"while working \(exit status 3\)") as error:
        real_steps.run("working", ["/bin/sh", "-c", "for i in $(seq 30); do echo line $i; done; exit 3"])
    assert "setup.log" in error.value.where
    assert error.value.hint.splitlines()[-15:] == [f"line {number}" for number in range(16, 31)]


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
    with pytest.raises(KitError) as error:
        real_steps.run("working", [REAL_UV, "pip", "compile", name], draws=True)
    assert name in error.value.hint


def test_a_step_whose_program_is_missing(real_steps):
    with pytest.raises(KitError) as error:
        real_steps.run("working", ["/no/such/program"])
    assert "/no/such/program: No such file" in error.value.hint


def test_a_step_does_not_see_another_environment(real_steps, checkout, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror.example")
    real_steps.run("working", ["/bin/sh", "-c", "env"])
    log = (checkout / "setup.log").read_text()
    assert "/elsewhere" not in log
    assert "UV_INSECURE_HOST=mirror.example" in log


def test_the_lock_is_held_by_a_step_that_outlives_the_setup(checkout):
    """A setup killed outright leaves its installer working; no other may start beside that."""
    file = checkout / "lock"
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        setup = steps_module.Steps(checkout / "log", lock.fileno())
        setup.run(
            "leaving one behind", ["/bin/sh", "-c", f"sleep 1 >/dev/null 2>&1 & echo $! > {checkout}/pid"]
        )
    with file.open("w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_an_interrupt_ends_the_step(real_steps, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(progress, "WAIT_INTERVAL", 0.1)
    monkeypatch.setattr(progress, "format_duration", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        real_steps.run("working", ["/bin/sh", "-c", "exec sleep 600"])
    assert time.monotonic() - started < 300


def test_what_draws_gets_the_persons_terminal(checkout):
    """Its words go there and nowhere else; so an error of the kit's cannot repeat them, and says so."""
    import pty

    program = (
        "from pathlib import Path; from launch.setup.steps import Steps\n"
        "lock = open('lock', 'w'); steps = Steps(Path('log'), lock.fileno())\n"
        "steps.run('working', ['/bin/sh', '-c', '[ -t 1 ] && [ -t 2 ] && echo a bar'], draws=True)\n"
        "steps.run('checking', ['/bin/sh', '-c', '[ -t 1 ] || echo no terminal'])\n"
        "try: steps.run('failing', ['/bin/sh', '-c', 'echo the cause; exit 1'], draws=True)\n"
        "except Exception as error: print(str(error))"
    )
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [REAL, "-c", program],
        cwd=str(checkout),
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        env={**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)},
    )
    os.close(slave)
    error, _ = child.communicate(timeout=30)
    seen = os.read(master, 65536).decode().replace("\r\x1b[K", "").splitlines()
    os.close(master)
    assert [re.sub(r"^\[.*s\] ", "", line) for line in seen] == [
        *("setup: working", "a bar", "setup: checking", "setup: failing", "the cause")
    ]
    log = (checkout / "log").read_text().splitlines()
    assert [line for line in log if "setup: " not in line] == ["no terminal"]
    assert "its words stand above" in error
    assert "route to a package index" in error
    assert "disk is full" in error


# --- a uv that is here -----------------------------------------------------------------------------------


@pytest.fixture
def own_uv(machine, monkeypatch):
    """Where the kit has the uv that it has fetched."""
    monkeypatch.setattr(installer, "OWN", machine / "env/uv/uv")
    return installer.OWN


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
def test_a_uv_on_path_is_taken_where_it_does_what_the_locked_one_does(machine, own_uv, answer, good):
    uv = script(machine / "bin/uv", f"echo '{answer}'")
    assert installer.find_uv() == (uv if good else "")


def test_a_uv_that_does_not_start_is_none(machine, own_uv):
    assert installer.find_uv() == ""
    script(machine / "bin/uv", "echo uv 0.13.9; exit 1")
    assert installer.find_uv() == ""


def test_a_uv_that_hangs_is_none(machine, own_uv, monkeypatch):
    monkeypatch.setattr(installer, "ANSWER_SECONDS", 0.2)
    script(machine / "bin/uv", "echo uv 0.13.9; sleep 600")
    started = time.monotonic()
    assert installer.find_uv() == ""
    assert time.monotonic() - started < 300


def test_the_fetched_uv_goes_before_one_on_path(machine, own_uv):
    script(machine / "bin/uv", "echo uv 0.13.10")
    own = script(own_uv, "echo uv 0.13.9")
    assert installer.find_uv() == own


# --- pip's settings, for uv ------------------------------------------------------------------------------


@pytest.fixture
def person(tmp_path, monkeypatch):
    """The variables of a person with files of pip's in every place but the machine's own."""
    own = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_DIRS": f"{tmp_path / 'all'}{os.pathsep}{tmp_path / 'more'}",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    for number, name in enumerate(("all/pip", "more/pip", ".pip", "config/pip")):
        file = tmp_path / name / "pip.conf"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"[global]\nindex-url = https://{number}.example/%(x)s\ncert = /{number}.pem\nno-such = 1\n"
            f"timeout =\n[install]\ntrusted-host =\n  a{number}\n  b{number}\n[download]\nproxy = {number}\n"
        )
    (tmp_path / "more/pip/pip.conf").write_text("[install]\nindex-url = https://install.example\n")
    return own


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PIP_INDEX_URL": "https://variable.example", "PIP_DEFAULT_TIMEOUT": "9"},
        {"PIP_CONFIG_FILE": "named.conf"},
        {"PIP_CONFIG_FILE": "/no/such/file"},
        {"PIP_CONFIG_FILE": os.devnull},
    ],
)
def test_pips_settings_are_read_as_pip_reads_them(person, tmp_path, variables):
    (tmp_path / "named.conf").write_text("[global]\nindex-url = https://named.example\nproxy = p\n")
    if variables.get("PIP_CONFIG_FILE") == "named.conf":
        variables = {"PIP_CONFIG_FILE": str(tmp_path / "named.conf")}
    person.update(variables)
    argv = [REAL, "-I", "-m", "pip", "config", "list"]
    asked = subprocess.run(argv, env=person, capture_output=True, text=True, check=True)
    lines = dict(line.split("=", 1) for line in asked.stdout.splitlines())
    pips = {}
    for section in ("global.", "install.", ":env:."):
        for name, value in lines.items():
            if name.startswith(section):
                pips[name[len(section) :]] = " ".join(ast.literal_eval(value).split())
    assert uv_settings.read_pip_settings(person) == {name: value for name, value in pips.items() if value}


def test_a_damaged_file_of_pips_says_nothing(person, tmp_path):
    (tmp_path / "config/pip/pip.conf").write_bytes(b"no section\n\xff")
    uv_settings.read_pip_settings(person)


def settings(monkeypatch, pip, environment):
    monkeypatch.setattr(uv_settings, "read_pip_settings", lambda _: pip)
    home = {"UV_CACHE_DIR": "/c", "UV_PYTHON_INSTALL_DIR": "/p"}
    return uv_settings.derive_uv_settings({**home, **environment})


def test_pips_settings_become_uvs(tmp_path, monkeypatch):
    pip = {"index-url": "https://mirror.example/simple", "cert": "/ca.pem", "default-timeout": "180"}
    assert settings(monkeypatch, pip, {}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_HTTP_TIMEOUT": "180",
    }
    assert settings(monkeypatch, {"cert": str(tmp_path)}, {}) == {"SSL_CERT_DIR": str(tmp_path)}


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_the_user_says_to_uv_stays(variable, monkeypatch):
    own = {variable: "https://own.example"}
    assert settings(monkeypatch, {"index-url": "https://mirror.example"}, own) == {}


def test_other_indexes_are_not_passed_on(monkeypatch):
    pip = {"extra-index-url": "https://x.example", "find-links": "/wheels"}
    assert settings(monkeypatch, pip, {}) == {}


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
    pins = requirements.read_pins(f"{name}.lock")
    assert {canonicalize_name(package): version for package, version in pins.items()} == locked(name)


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_a_lock_has_what_its_source_asks_for(name):
    assert direct(name)
    for requirement, _ in direct(name):
        version = locked(name).get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in {name}.lock"
        assert requirement.specifier.contains(version, prereleases=True), (str(requirement), version)


EXCLUSIONS = {
    "runtime": "exclude.txt",
    **{name: f"{name}-exclude.txt" for name in ("mo2021", "hub", "runtimes")},
}


@pytest.mark.parametrize("name", EXCLUSIONS)
def test_no_excluded_package_is_locked(name):
    excluded = {canonicalize_name(requirement.name) for requirement in exclusions(name)}
    assert excluded
    assert not excluded & set(locked(name))


def exclusions(name):
    lines = (LOCK_DIRECTORY / EXCLUSIONS[name]).read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", EXCLUSIONS)
def test_exclusions_never_apply(name):
    for requirement in exclusions(name):
        assert requirement.marker is not None
        assert not requirement.marker.evaluate(), requirement


def test_locks_agree():
    for one, other in (
        ("runtime", "dev"),
        ("runtime", "report"),
        ("runtime", "installer"),
        ("dev", "installer"),
    ):
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
    installed = set(locked("runtime")) | set(locked("dev"))
    assert not installed & set(locked("sources"))

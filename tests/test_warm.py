"""Jobs as children of a process that has imported the libraries: to a job it is as if it ran by itself."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from launch import child, paths
from launch.errors import KitError
from launch.qa import extension
from launch.source import Registry
from launch.status import STATUS_FD
from launch.warm import Warm

IMPORTED = "colorsys"
"""A module that Python does not import by itself."""

STATE = f"""
import json, os, signal, sys
known = {IMPORTED!r} in sys.modules
own = sys.modules["__main__"]
state = {{
    "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path, "environment": list(os.environ.items()),
    "flags": list(sys.flags), "executable": sys.executable,
    "main": [__name__, __file__, __doc__, __package__, str(__spec__), type(__loader__).__name__, __cached__],
    "names": sorted(vars(own)), "same": vars(own) is globals(), "annotations": __annotations__,
    "kits": [name for name in sys.modules if name.startswith("launch")],
    "files": sorted(os.readlink(f"/proc/self/fd/{{fd}}").split(":")[0]
                    for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{fd}}")),
    "signals": [str(signal.getsignal(number)) for number in sorted(signal.Signals)
                if number not in (signal.SIGKILL, signal.SIGSTOP)],
    "buffers": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdout.encoding],
    "mask": os.umask(0o22), "stdin": sys.stdin.read(),
}}
with open(sys.argv[1], "w") as file:
    json.dump([state, known, os.getppid()], file)
"""


class Jobs:
    """Runs programs in a folder, as children of the process or by themselves."""

    def __init__(self, folder: Path, warm: Warm, lock: int) -> None:
        self.folder = folder
        self.warm = warm
        self.lock = lock
        self.steps: List[Optional[str]] = []
        self.env = {**os.environ, "PYTHONPATH": str(paths.REPOSITORY), "PYTHONHASHSEED": "0"}
        self.env[extension.FOLDER] = str(folder / "extensions")
        built = extension.built(folder / "extensions")
        built.parent.mkdir(parents=True)
        built.touch()

    def run(
        self,
        text: str,
        *args: object,
        imports: Optional[List[str]] = None,
        warm: bool = True,
        name: str = "program.py",
    ) -> child.Usage:
        program_file = self.folder / name
        program_file.parent.mkdir(exist_ok=True)
        program_file.write_text(text, encoding="utf-8")
        return self.start(program_file, *args, imports=imports, warm=warm)

    def start(
        self, program_file: Path, *args: object, imports: Optional[List[str]] = None, warm: bool = True
    ) -> child.Usage:
        def start(command: child.Command) -> child.Running:
            return self.warm.start([IMPORTED] if imports is None else imports, command)

        return child.run(
            [sys.executable, str(program_file), *map(str, args)],
            env=self.env,
            cwd=self.folder,
            log=self.folder / "log.txt",
            what="a test",
            tick=lambda step: self.steps.append(step),
            inherit=(self.lock,),
            start=start if warm else None,
        )

    def state(self, *args: object, **options: Any) -> Any:
        found = self.folder / "found.json"
        self.run(STATE, found, *args, **options)
        return json.loads(found.read_text())

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with (tmp_path / "lock").open("w") as lock, Warm() as warm:
        yield Jobs(tmp_path, warm, lock.fileno())


def environment(state: Dict[str, Any]) -> List[Any]:
    """Take the environment out of a state; the status pipe has a number of its own in each process."""
    found = [[name, "a number" if name == STATUS_FD else value] for name, value in state.pop("environment")]
    assert [STATUS_FD, "a number"] in found
    return found


def test_a_job_cannot_tell_how_it_was_started(jobs: Jobs) -> None:
    words = ("--name", "ä ö", b"\xff".decode("utf-8", "surrogateescape"), "")
    warm, known, _ = jobs.state(*words)
    again, known_again, _ = jobs.state(*words)
    own, not_known, _ = jobs.state(*words, warm=False)
    assert (known, known_again, not_known) == (True, True, False)
    assert environment(warm) == environment(again) == environment(own)
    assert warm == again == own
    assert own["argv"][2:] == list(words)
    assert own["names"].count("__name__") == 1


def test_a_link_to_a_program_is_followed_as_python_does(jobs: Jobs) -> None:
    jobs.run("", name="below/linked.py")
    (jobs.folder / "below" / "linked.py").write_text(STATE)
    (jobs.folder / "link.py").symlink_to("below/linked.py")
    found = []
    for warm in (True, False):
        jobs.start(jobs.folder / "link.py", jobs.folder / "found.json", warm=warm)
        found.append(json.loads((jobs.folder / "found.json").read_text())[0])
        environment(found[-1])
    assert found[0] == found[1]
    assert found[0]["path"][0] == str(jobs.folder / "below")


def test_jobs_of_one_environment_share_a_process(jobs: Jobs) -> None:
    first, second = jobs.state()[2], jobs.state()[2]
    assert first == second != os.getpid()
    jobs.env["GLIBC_TUNABLES"] = "glibc.malloc.mmap_threshold=1048576"
    state, _, third = jobs.state()
    assert third not in (first, os.getpid())
    assert ["GLIBC_TUNABLES", jobs.env["GLIBC_TUNABLES"]] in state["environment"]
    assert not Path(f"/proc/{first}").exists(), "one at a time"
    assert jobs.state(warm=False)[2] == os.getpid()
    jobs.warm.close()
    assert not Path(f"/proc/{third}").exists()


ENDINGS = {
    "status": "import sys; print('the last words'); sys.exit(3)",
    "message": "raise SystemExit('the last words')",
    "refusal": "import sys; print('the last words'); sys.exit(2)",
    "exception": "import atexit; atexit.register(print, 'at exit'); print('the last words'); {}['key']",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.abort()",
    "reported": "from launch import errors, status; status.step('at work');"
    " status.error(errors.KitError('A.', where='b', hint='C.')); raise SystemExit(2)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_end_is_reported_as_it_was(jobs: Jobs, ending: str) -> None:
    said = []
    for warm in (True, False):
        with contextlib.suppress(FileNotFoundError):
            (jobs.folder / "log.txt").unlink()
        with pytest.raises(KitError) as caught:
            jobs.run(ENDINGS[ending], warm=warm)
        # The frame that executes the program is one more, above those of the program.
        lines = [line for line in str(caught.value).splitlines() if "<string>" not in line]
        said.append([line for line in lines if "loading libraries" not in line])
    assert said[0] == said[1]
    assert jobs.state()[1], "the process is there for the next job"


def test_steps_arrive(jobs: Jobs) -> None:
    jobs.run(ENDINGS["reported"].split(";")[0] + "; status.step('at work')")
    assert list(dict.fromkeys(filter(None, jobs.steps))) == ["loading libraries", "at work"]


@pytest.mark.parametrize("imports", [["no_such_module"], ["this", "antigravity_is_none"]])
def test_a_process_that_cannot_import_is_no_failure(jobs: Jobs, imports: List[str]) -> None:
    assert jobs.state(imports=imports)[1:] == [False, os.getpid()]
    assert jobs.state(imports=imports)[1:] == [False, os.getpid()]


def test_without_the_compiled_extension_a_job_runs_by_itself(jobs: Jobs) -> None:
    extension.built(jobs.folder / "extensions").unlink()
    assert jobs.state()[2] == os.getpid()
    extension.built(jobs.folder / "extensions").touch()
    assert jobs.state()[2] != os.getpid(), "the first one has compiled it"
    del jobs.env[extension.FOLDER]
    assert jobs.state()[2] == os.getpid()


def test_a_lock_file_of_a_killed_compiler_is_removed(jobs: Jobs) -> None:
    stale = extension.built(jobs.folder / "extensions").with_name("lock")
    stale.touch()
    assert jobs.state()[1]
    assert not stale.exists()


def test_a_job_is_run_again_when_the_process_dies(jobs: Jobs) -> None:
    text = """
import os, signal, sys, time
with open("attempts", "a") as file:
    file.write(f"{os.getppid()}\\n")
if os.getppid() != int(sys.argv[1]):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
    started = time.monotonic()
    jobs.run(text, os.getpid())
    attempts = [int(line) for line in (jobs.folder / "attempts").read_text().split()]
    assert len(attempts) == 2
    assert attempts[0] != attempts[1] == os.getpid()
    assert time.monotonic() - started < 30
    assert jobs.state()[1:] == [False, os.getpid()], "it is not tried again"


ALLOCATES = "held = bytearray(400 << 20); del held"


def test_memory_and_time_are_the_jobs_own(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "heavy_import.py").write_text(ALLOCATES + "\nfor _ in range(10 ** 7): pass\n")
    jobs.env["PYTHONPATH"] = str(tmp_path)
    imports = ["heavy_import"]
    first = jobs.run("pass", imports=imports)
    large = jobs.run(ALLOCATES, imports=imports)
    after = jobs.run("pass", imports=imports)
    assert first.peak_bytes < 100e6
    assert large.peak_bytes > 400e6
    assert 1e6 < after.peak_bytes < 100e6
    assert after.cpu_seconds < 0.1 < first.seconds
    grown = jobs.run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ALLOCATES!r}])")
    assert grown.peak_bytes > 400e6, "a job's own children count"


KIT = """
import os, signal, sys
from pathlib import Path
from launch import child
from launch.errors import exit_with_message
from launch.warm import Warm

def body():
    with Warm() as warm:
        child.run([sys.executable, "sleeper.py"], env=dict(os.environ), cwd=Path.cwd(), log=Path("log.txt"),
                  what="sleeping", tick=lambda step: None, start=lambda command: warm.start([], command))
    return 0

# Whoever starts the tests in the background of a shell has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
exit_with_message(body)
"""

SLEEPER = "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(120)"


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "Ctrl-C"])
def test_nothing_outlives_the_kit(jobs: Jobs, how: Any) -> None:
    (jobs.folder / "sleeper.py").write_text(SLEEPER)
    env = {**jobs.env, "PYTHONPATH": str(paths.REPOSITORY)}
    kit = subprocess.Popen(
        [sys.executable, "-c", KIT],
        cwd=str(jobs.folder),
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids: List[int] = []
    deadline = time.monotonic() + 30
    while not pids and time.monotonic() < deadline:
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            pids = [
                int(word) for line in jobs.log.splitlines()[1:] for word in line.split() if word.isdigit()
            ]
    sleeper, server = pids
    assert server != kit.pid
    assert is_running(sleeper)
    if how == "Ctrl-C":
        os.killpg(kit.pid, signal.SIGINT)
    else:
        kit.send_signal(how)
    _, said = kit.communicate(timeout=30)
    if how in (signal.SIGINT, "Ctrl-C"):
        assert kit.returncode == 130, said
        assert said == "interrupted\n"
        assert not is_running(sleeper), "the kit waits for it"
    deadline = time.monotonic() + 10
    while (is_running(sleeper) or is_running(server)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(sleeper)
    assert not is_running(server)


IMPORTS = """
import importlib, os, random, signal, sys
import numpy, torch

def state():
    handlers = [str(signal.getsignal(number)) for number in sorted(signal.Signals)]
    return (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist(),
            dict(os.environ), os.getcwd(), handlers, sys.argv)

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert state() == before
tasks = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
# Arrow's allocator has one, and is made for forks.
assert len([name for name in tasks if name != "jemalloc_bg_thd"]) == 1, tasks
"""


def test_imports_draw_nothing_and_start_nothing(derived_source: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *Registry.imports],
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(paths.VENV / "bin"), os.environ["PATH"]]),
            "PYTHONPATH": str(derived_source),
            "CUDA_VISIBLE_DEVICES": "",
            "OPENBLAS_NUM_THREADS": "1",  # it ends its threads before a fork and starts them after it
            "TRANSFORMERS_OFFLINE": "1",
            extension.FOLDER: str(paths.EXTENSIONS / "registry"),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr

"""Shared fixtures: a two-layer BERT, a launch file with other product folders, the commands run for real."""

import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence, Union
from unittest import mock

import pytest
from hypothesis import settings

from launch import cli
from launch.build import hub
from launch.core import hidden, paths
from launch.core.errors import exit_with_message
from launch.core.files import hold_lock

from . import WORKER, hub_server, small_kit
from .loaded import Loaded

# transformers is not installed: the derived tree is where tests find it, as runs do.
sys.path.insert(0, str(paths.DERIVED_SOURCES / "registry"))

settings.register_profile("kit", max_examples=int(os.environ.get("KIT_CASES", "50")), deadline=None)
settings.load_profile("kit")

HYBRID = "90pc_sparse-02_head-0512_ffnn"
UNSTRUCTURED = "90pc_unstructured_sparse"
HIDDEN, INTERMEDIATE = 512, 2048
TINY = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": 16,
    "vocab_size": 2048,
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run in one process more than there are cores: each waits for a tenth of its time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Put the tests of the shared trees first: while a process makes them, others run what needs none."""
    items.sort(key=lambda item: "built" not in getattr(item, "fixturenames", ()))


def write_model(folder: Path, **changes: object) -> Path:
    """Write the sample's tokenizer with a changed config; a value of None removes the key."""
    shutil.copytree(str(paths.SAMPLE / "model"), str(folder))
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.fixture(autouse=True)
def _nothing_hidden() -> Iterator[None]:
    """Forget what a test has read of a launch file's variables: in later texts it would be left out."""
    with mock.patch.dict(hidden._values):
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of a test run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own if WORKER == "main" else own.parent


@pytest.fixture(scope="session")
def tiny_model(shared: Path) -> Path:
    with hold_lock(shared / "model.lock", "the model of the tests"):
        return shared / "tiny" if (shared / "tiny").exists() else write_model(shared / "tiny", **TINY)


@pytest.fixture(scope="session")
def derived_source() -> Path:
    """The patched tree of nncf and transformers that `make setup` derives."""
    from launch.sources.source import Registry

    assert Registry().is_ready(), "run the tests with `make test`, or `make setup SOURCE=registry` first"
    return Registry().tree


def write_launch_file(folder: Path) -> Path:
    """Write the kit's launch file with its products below ``folder``, so that no real build is disturbed."""
    text = paths.LAUNCH_FILE.read_text(encoding="utf-8")
    for product in ("build/work", "build/evaluate", "trained"):
        text = text.replace("${workspaceFolder}/" + product, str(folder / Path(product).name))
    path = folder / "launch.json"
    path.write_text(text, encoding="utf-8")
    return path


def copy_checkout(folder: Path) -> Path:
    """Copy what a command needs of the checkout, nothing of it set up."""
    for name in ("launch", "patches", ".vscode"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(str(paths.REPOSITORY / name), str(folder / name), ignore=skipped)
    shutil.copy(str(paths.REPOSITORY / "Makefile"), str(folder))
    return folder


class Kit:
    """Runs `python -m launch` on the tiny model."""

    MODULE = (sys.executable, "-m", "launch")

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.launch_file = write_launch_file(folder)
        self.model = model

    def argv(self, command: str, variant: str, **options: object) -> List[str]:
        usual: Dict[str, object] = {
            "input": "files",
            "model": self.model,
            "train_file": paths.SAMPLE / "train.json",
            "validation_file": paths.SAMPLE / "validation.json",
            "launch": self.launch_file,
            "source": "registry",
        }
        taken = cli.COMMANDS[command].options
        values = {**{name: value for name, value in usual.items() if name in taken}, **options}
        if command in ("all", "variant"):
            values.setdefault("out", self.out)
        if variant:
            values["v"] = variant
        words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
        return [*self.MODULE, command, *words]

    def run(
        self, command: str, variant: str = "", env: Optional[Mapping[str, str]] = None, **options: object
    ) -> "subprocess.CompletedProcess[str]":
        return call(self.argv(command, variant, **options)[len(self.MODULE) :], env)

    def tree(self, variant: str, out: Optional[Path] = None) -> Path:
        return (out or self.out) / variant


class Built(Kit):
    """The trees that all tests share: they are looked at, and made once.

    :param first: what the command that made them said.
    """

    first: "subprocess.CompletedProcess[str]"

    def run(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("other tests read these trees: make others, of a Kit of the test's own")


def run(
    argv: Sequence[str], cwd: Union[str, Path] = paths.REPOSITORY, env: Optional[Mapping[str, str]] = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end and return what it said."""
    return subprocess.run(
        argv, cwd=str(cwd), env=env, capture_output=True, text=True, timeout=1800, check=False
    )


class _BecomesError(BaseException):
    """A command was about to become another program, which is of the arguments ``os.execve`` got."""


def _become(*program: object) -> NoReturn:
    raise _BecomesError(*program)


def call(words: Sequence[str], env: Optional[Mapping[str, str]] = None) -> "subprocess.CompletedProcess[str]":
    """Run a command as ``python -m launch <words>`` does, but in this process; for what it becomes, in one.

    :param env: the whole environment, if it is to be another one.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with _captured() as texts, contextlib.ExitStack() as stack:
        stack.callback(os.chdir, str(Path.cwd()))
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        stack.enter_context(mock.patch.dict(os.environ, env or {}, clear=env is not None))
        stack.enter_context(mock.patch.dict(hidden._values))
        stack.enter_context(mock.patch.object(os, "execve", _become))
        os.chdir(str(paths.REPOSITORY))
        try:
            exit_with_message(lambda: cli.main(list(words)))
        except SystemExit as ended:
            status = int(ended.code or 0)
        except _BecomesError as program:
            sys.stdout.flush()
            sys.stderr.flush()
            status = subprocess.run(program.args[1], env=program.args[2], timeout=600, check=False).returncode
    return subprocess.CompletedProcess([*Kit.MODULE, *words], status, *texts)


def _text(file: io.FileIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8")


@contextlib.contextmanager
def _captured() -> Iterator[List[str]]:
    """Yield a list that standard output and standard error are in afterwards, what children write too."""
    texts: List[str] = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = sys.stdout, sys.stderr, os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = (_text(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
        try:
            yield texts
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = kept[:2]
            for number, copy in enumerate(kept[2:], 1):
                os.dup2(copy, number)
                os.close(copy)
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace").replace("\r\n", "\n"))


def processor_seconds(argv: List[str]) -> float:
    """Return the least processor time of three runs: other work on the machine hardly changes it."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(argv)
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(3))


@pytest.fixture
def kit(tmp_path: Path, tiny_model: Path) -> Kit:
    return Kit(tmp_path, tiny_model)


@pytest.fixture(scope="session")
def built(shared: Path, tiny_model: Path, derived_source: Path) -> Built:
    """The five variants of the tiny model, made once by the command that users run."""
    record = shared / "built.pickle"
    with hold_lock(shared / "built.lock", "the trees of the tests"):
        if not record.exists():
            folder = shared / "built"
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            kit = Built(folder, tiny_model)
            kit.first = run(kit.argv("all", ""))
            assert kit.first.returncode == 0, kit.first.stderr
            record.write_bytes(pickle.dumps(kit))
        made: Built = pickle.loads(record.read_bytes())
    return made


@pytest.fixture(scope="session")
def loaded(derived_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Pythons that have torch, NNCF or transformers loaded, and ask no hub."""
    home = tmp_path_factory.mktemp("loaded")
    made = Loaded(
        {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(derived_source), str(paths.REPOSITORY)]),
            "TRANSFORMERS_OFFLINE": "1",
        },
        home,
    )
    yield made
    made.close()


@pytest.fixture(scope="session")
def plain_kit(tmp_path_factory: pytest.TempPathFactory) -> small_kit.SmallKit:
    """A small kit as a plain `git clone` leaves it; whoever changes it, puts it back."""
    return small_kit.build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def fetched_kit(
    plain_kit: small_kit.SmallKit, tmp_path_factory: pytest.TempPathFactory
) -> small_kit.SmallKit:
    """A small kit with its submodules checked out; whoever changes it, puts it back."""
    kit = small_kit.copy(plain_kit, tmp_path_factory.mktemp("fetched"))
    kit.do("third_party")
    return kit


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Place]:
    """A hub, and a person with an empty cache whose variables name it."""
    assert hub.ENVIRONMENT.is_ready(), "run the tests with `make test`, or `make setup INPUT=hub` first"
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    files["model.safetensors"] = os.urandom(200_000)
    pages = {"/train.json": hub_server.TRAIN, "/dev.json": hub_server.VALIDATION}
    with hub_server.running(hub_server.Hub(files, pages)) as server:
        made = hub_server.Place(server, tmp_path)
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        before = set((paths.BUILD / "hub").glob("*"))
        yield made
        for folder in set((paths.BUILD / "hub").glob("*")) - before:
            shutil.rmtree(str(folder))


@pytest.fixture
def hashes() -> Callable[[Path], Dict[str, str]]:
    """A function that gives the sha256 of every file of a tree, by relative name."""
    from launch.core import files

    def of(tree: Path) -> Dict[str, str]:
        return {
            str(path.relative_to(tree)): files.digest_file(path)
            for path in sorted(tree.rglob("*"))
            if path.is_file()
        }

    return of


def assert_user_error(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """Assert an error as users are to see it: status 2, three parts, one screen, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert "where: " in done.stderr
    assert "to do: " in done.stderr
    shown = done.stderr[done.stderr.index("error: ") :]
    assert len(shown.splitlines()) <= 24
    for word in words:
        assert word in done.stderr, (word, done.stderr)

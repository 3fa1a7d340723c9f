"""Shared fixtures: a two-layer BERT, a launch file with other product folders, the commands run for real."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import pytest

from launch import cli, hub, paths

from . import hub_server

# transformers is not installed: the derived tree is where tests find it, as runs do.
sys.path.insert(0, str(paths.DERIVED_SOURCES / "registry"))

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


def pytest_configure() -> None:
    """Take away what `make` exports: tests, and fixtures of all scopes, say themselves what they want.

    All run on the registry's releases, whether or not the submodules are checked out here.
    """
    for name in list(os.environ):
        if name.startswith("LAUNCH_") or name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            del os.environ[name]
    os.environ["LAUNCH_SOURCE"] = "registry"


def write_model(folder: Path, **changes: object) -> Path:
    """Write the sample's tokenizer with a changed config; a value of None removes the key."""
    shutil.copytree(str(paths.SAMPLE / "model"), str(folder))
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny", **TINY)


@pytest.fixture(scope="session")
def derived_source() -> Path:
    """The patched tree of nncf and transformers that `make setup` derives."""
    from launch.source import Registry

    assert Registry().is_ready(), "run the tests with `make test`, or `make setup SOURCE=registry` first"
    return Registry().tree


def write_launch_file(folder: Path) -> Path:
    """Write the kit's launch file with its products below ``folder``, so that no real build is disturbed."""
    text = paths.LAUNCH_FILE.read_text(encoding="utf-8")
    for product in ("work", "evaluate"):
        text = text.replace("${workspaceFolder}/build/" + product, str(folder / product))
    path = folder / "launch.json"
    path.write_text(text, encoding="utf-8")
    return path


class Kit:
    """Runs `python -m launch` on the tiny model."""

    MODULE = (sys.executable, "-m", "launch")

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.launch_file = write_launch_file(folder)
        self.model = model
        self.first: Optional[subprocess.CompletedProcess[str]] = None

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

    def run(self, command: str, variant: str = "", **options: object) -> "subprocess.CompletedProcess[str]":
        return run(self.argv(command, variant, **options))

    def tree(self, variant: str, out: Optional[Path] = None) -> Path:
        return (out or self.out) / variant


def run(argv: List[str], **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        argv, cwd=str(paths.REPOSITORY), capture_output=True, text=True, timeout=600, check=False, **more
    )


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
def built(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, derived_source: Path) -> Iterator[Kit]:
    """The five variants of the tiny model, made once by the command that users run."""
    kit = Kit(tmp_path_factory.mktemp("built"), tiny_model)
    kit.first = run(kit.argv("all", ""))
    assert kit.first.returncode == 0, kit.first.stderr
    yield kit
    shutil.rmtree(str(kit.folder), ignore_errors=True)


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
    from launch import digests

    def of(tree: Path) -> Dict[str, str]:
        return {
            str(path.relative_to(tree)): digests.of_file(path)
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

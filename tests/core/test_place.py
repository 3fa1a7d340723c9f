"""Where a checkout may lie: what a build cannot stand is refused first, and all that builds nothing works."""

import os
import subprocess
from pathlib import Path
from typing import List

import pytest

from launch.core import machine, paths
from launch.core.errors import KitError
from launch.setup import environment, interpreters

from ..conftest import HYBRID, assert_user_error, copy_checkout, run

UNFIT = {
    "two words": ("a space", "unquoted"),
    "it's": ('"\'"', "unquoted"),
    'a"b': ("'\"'", "unquoted"),
    "a\nb": ("a line end", "unquoted"),
    "a\tb": ("a tab", "unquoted"),
    "a\x01b": ("U+0001", "unquoted"),
    "$HOME": ("'$'", "unquoted"),
    "a\\b": (repr("\\"), "unquoted"),
    "a;b": ("';'", "unquoted"),
    "(a)": ("'('", "unquoted"),
    "🤗": ("'🤗'", "unquoted"),
    os.fsdecode(b"caf\xe9"): ("not UTF-8 (0xe9)", "unquoted"),
    "a:b": ("':'", "PYTHONPATH"),
    "a,b": ("','", "Model Optimizer"),
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_what_a_build_cannot_stand_is_named_with_the_reason(name: str, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPOSITORY", Path("/srv") / name / "kit")
    with pytest.raises(KitError) as caught:
        machine.check_place()
    for word in UNFIT[name]:
        assert word in caught.value.what
    assert caught.value.where == f"/srv/{name}/kit"
    assert "clone" in caught.value.hint


@pytest.mark.parametrize("name", ["kit", "a@b%41c+d=e.g-h_1", "naïve", "e\u0301", "模型", "हिन्दी", "Ω٣"])
def test_letters_of_any_language_and_some_signs_are_fit(name: str, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPOSITORY", Path("/srv") / name / "kit")
    machine.check_place()


def test_headers_that_no_compiler_would_find_are_refused(tmp_path: Path) -> None:
    fit = interpreters.Interpreter("/p/python3.8", "3.8.18", "here", headers="/p/include/python3.8")
    environment._check_interpreter(fit)
    unfit = interpreters.Interpreter("/a b/python3.8", "3.8.18", "here", headers="/a b/include/python3.8")
    with pytest.raises(KitError) as caught:
        environment._check_interpreter(unfit)
    assert "a space" in caught.value.what
    assert caught.value.where == unfit.headers
    assert "PYTHON=" in caught.value.hint


def make(clone: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "HOME": str(clone.parent), "LAUNCH_SOURCE": "registry"}
    argv: List[str] = ["make", "--no-print-directory", *words]
    return run(argv, cwd=clone, env=env)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("place") / "my kit")


@pytest.mark.parametrize("words", [["setup"], ["variant", f"V={HYBRID}"], ["evaluate"], ["test"], ["all"]])
def test_what_builds_refuses_at_once(clone: Path, words: List[str]) -> None:
    done = make(clone, *words)
    assert done.returncode == 2
    assert_user_error(done, "a space", str(clone), "clone the checkout")
    assert not (clone / ".venv").exists()
    assert not (clone / "build/src").exists()


@pytest.mark.parametrize("words", [["help"], ["command", f"V={HYBRID}"], ["configs"]])
def test_what_builds_nothing_works(clone: Path, words: List[str]) -> None:
    done = make(clone, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout

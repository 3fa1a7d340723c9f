"""Where NNCF and transformers come from: the choice, and a derived tree that is whole or not there."""

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Callable, List

import pytest

from launch.cli import is_yes
from launch.core.errors import KitError
from launch.setup import installer
from launch.sources.source import KINDS, Fork, Registry, choose_source

from .. import small_kit
from ..conftest import assert_user_error, call
from ..small_kit import FILES, GREET, LINK, LINKED, PATCHES, QA, RUN_QA, SmallKit

DERIVE = """
import sys
from launch import cli
from launch.core import errors
from launch.sources.source import choose_source

def derive():
    source = choose_source(sys.argv[1], cli.is_yes(sys.argv[2], "fast"))
    print("made" if source.ensure(print) else "current")
    assert source.is_ready()
    return 0

errors.exit_with_message(derive)
"""
"""What `make setup` does for the sources, without making an environment."""

DIE = """
import os, signal
from launch.sources.source import Fork

class Dying(Fork):
    def _fill(self, staging, lock):
        super()._fill(staging, lock)
        os.kill(os.getpid(), signal.SIGKILL)

Dying().ensure(print)
"""


REMOTE = {
    "clone",
    "fetch",
    "fetch-pack",
    "ls-remote",
    "pull",
    "remote",
    "remote-https",
    "submodule",
    "upload-pack",
}
"""What git runs where it goes to another repository."""


@pytest.fixture
def kit(plain_kit: SmallKit, tmp_path: Path) -> SmallKit:
    """A kit whose submodules are not checked out."""
    return small_kit.copy(plain_kit, tmp_path / "plain")


@pytest.fixture
def forked(fetched_kit: SmallKit, tmp_path: Path) -> SmallKit:
    """A kit whose submodules are checked out."""
    return small_kit.copy(fetched_kit, tmp_path / "forked")


def derive(kit: SmallKit, source: str, fast: str = "1") -> "subprocess.CompletedProcess[str]":
    return kit.run(sys.executable, "-c", DERIVE, source, fast)


def derived(kit: SmallKit, source: str, fast: str = "1") -> str:
    """Derive the tree, and return whether it was made or current."""
    done = derive(kit, source, fast)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def setup(kit: SmallKit, source: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the command that says which source it takes, and then ends at a Python that is none."""
    return kit.launch("setup", "--python=/bin/false", f"--source={source}", **env)


def tree(kit: SmallKit, source: str) -> Path:
    return kit.root / "build/src" / source


def write_wheels(kit: SmallKit) -> Path:
    """Put releases into the kit that hold what the forks' pins do, and lock them; return their folder."""
    wheels = kit.home / "wheels"
    wheels.mkdir(parents=True)
    lock = ""
    for package, packed in (("nncf", ""), ("transformers", "src/")):
        wheel = wheels / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(str(wheel), "w") as archive:
            for file, content in FILES[package].items():
                if file.startswith(f"{packed}{package}/"):
                    archive.writestr(file[len(packed) :], content)
            names = [f"{name},,\n" for name in archive.namelist()]
            about = f"{package}-1.0.dist-info"
            archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            archive.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{about}/RECORD", "".join(names))
        lock += f"{package}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    (kit.root / "launch/setup/locks/sources.lock").write_text(lock)
    (kit.root / ".venv/bin").mkdir(parents=True)
    (kit.root / ".venv/bin/python").symlink_to(sys.executable)
    (kit.root / "build/env/uv").mkdir(parents=True)
    (kit.root / "build/env/uv/uv").symlink_to(installer.find_uv())
    kit.env.update(UV_OFFLINE="1", UV_FIND_LINKS=str(wheels))
    return wheels


# --- the choice ------------------------------------------------------------------------------------------


def test_auto_takes_the_registry_where_nothing_is_checked_out(kit: SmallKit) -> None:
    done = kit.make("setup", "PYTHON=/bin/false")
    assert_user_error(done, "/bin/false")
    assert done.stderr.splitlines()[0] == "source  registry (nncf 2.1.0, transformers 4.9.1, 2 patches)"


def test_auto_takes_the_forks_where_they_are_checked_out(forked: SmallKit) -> None:
    done = forked.make("setup", "PYTHON=/bin/false")
    assert_user_error(done, "/bin/false")
    pins = ", ".join(f"{name} {forked.pin(name)[:12]}" for name in FILES)
    assert done.stderr.splitlines()[0] == f"source  fork ({pins}, 4 patches)"


@pytest.mark.parametrize("there", [False, True])
def test_auto_asks_the_disk_and_never_the_network(kit: SmallKit, forked: SmallKit, there: bool) -> None:
    chosen = forked if there else kit
    chosen.dead_addresses()
    log = chosen.home / "git.log"
    done = setup(chosen, "auto", GIT_TRACE=str(log))
    assert done.stderr.startswith("source  fork" if there else "source  registry")
    # Where nothing is checked out there is nothing that git would have to be asked.
    assert log.exists() == there
    if there:
        asked = set(re.findall(r"(?:built-in|exec|run_command): (?:git[ -])?([a-z-]+)", log.read_text()))
        assert {"rev-parse", "status"} <= asked
        assert not asked & REMOTE


def test_the_source_variable_overrules_auto(forked: SmallKit) -> None:
    for source in ("fork", "registry"):
        said = forked.make("setup", "PYTHON=/bin/false", f"SOURCE={source}").stderr
        assert said.startswith(f"source  {source} (")


def test_fork_without_submodules_names_the_command_to_run(kit: SmallKit) -> None:
    for words in (["setup"], ["all"], ["command", "--v=configs"]):
        done = kit.launch(*words, "--source=fork")
        assert_user_error(done, "not checked out", "third_party/nncf", "make third_party", "MIRROR=<folder")
        assert "source  " not in done.stderr, "nothing was taken instead"
    assert not (kit.root / "build/src").exists()


def test_unknown_source(kit: SmallKit) -> None:
    assert_user_error(setup(kit, "pypi"), "no source 'pypi'", "SOURCE=pypi", "auto, fork, registry")


def _one_missing(kit: SmallKit) -> None:
    kit.git("submodule", "deinit", "--force", "--quiet", "third_party/transformers")


def _other_commit(kit: SmallKit) -> None:
    kit.git("commit", "--quiet", "--allow-empty", "--message=Mine", at=kit.submodule("nncf"))


def _local_change(kit: SmallKit) -> None:
    (kit.submodule("nncf") / GREET).write_text("mine\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            _one_missing,
            ["third_party/transformers is not checked out, third_party/nncf is", "make third_party"],
        ),
        (
            _other_commit,
            ["not at its pin", "third_party/nncf", "git submodule update --init third_party/nncf"],
        ),
        (_local_change, ["local changes", GREET, "make patch-edit P=nncf"]),
    ],
    ids=["one-missing", "other-commit", "local-change"],
)
def test_submodules_that_are_not_as_pinned_are_never_passed_over(
    forked: SmallKit, spoil: Callable[[SmallKit], None], words: List[str]
) -> None:
    spoil(forked)
    for source in ("auto", "fork"):
        done = setup(forked, source)
        assert_user_error(done, *words)
        assert "source  " not in done.stderr
    # Who asks for the registry's releases does not need them.
    assert setup(forked, "registry").stderr.startswith("source  registry (")


def test_choose_gives_what_was_asked_for() -> None:
    assert KINDS == ("auto", "fork", "registry")
    assert isinstance(choose_source("registry"), Registry)
    with pytest.raises(KitError, match="No source was named"):
        choose_source("")


def test_the_sources_share_nothing_that_is_derived() -> None:
    fork, registry = Fork(), Registry()
    for ours, theirs in ((fork.tree, registry.tree), (fork.extensions, registry.extensions)):
        assert ours != theirs
        assert ours.parent == theirs.parent
    assert fork.key() != registry.key()


# --- the optional set ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("1", True),
        ("yes", True),
        ("true", True),
        ("0", False),
        ("no", False),
        ("false", False),
        ("NO", False),
    ],
)
def test_fast_says_yes_or_no(text: str, fast: bool) -> None:
    assert is_yes(text, "fast") == fast


@pytest.mark.parametrize("text", ["2", "perhaps", "fast", "-1"])
def test_fast_is_nothing_else(text: str) -> None:
    for command in ("setup", "all", "variant", "configs", "command", "evaluate"):
        variant = ["--v=90pc_unstructured_sparse"] if command in ("variant", "command") else []
        done = call([command, f"--fast={text}", "--source=registry", *variant])
        assert_user_error(done, f"FAST={text}", "neither on nor off")
        assert "source  " not in done.stderr


def test_fast_is_on_unless_it_is_left_out(kit: SmallKit, forked: SmallKit) -> None:
    for chosen, name, count in ((kit, "registry", 3), (forked, "fork", 5)):
        chosen.add_fast()
        with_it = chosen.make("setup", "PYTHON=/bin/false").stderr.splitlines()[0]
        without = chosen.make("setup", "PYTHON=/bin/false", "FAST=0").stderr.splitlines()[0]
        assert with_it.startswith(f"source  {name} (")
        assert with_it.endswith(f", {count} patches)")
        assert without == with_it.replace(f"{count} patches)", f"{count - 1} patches; without the fast set)")
    command = kit.launch("command", "--v=90pc_unstructured_sparse", "--explain=1", "--fast=no").stdout
    assert "on source registry (nncf 2.1.0, transformers 4.9.1, 2 patches; without the fast set)" in command


@pytest.mark.parametrize(("source", "package"), [("fork", "nncf/nncf"), ("registry", "nncf")])
def test_the_tree_follows_the_choice(forked: SmallKit, source: str, package: str) -> None:
    write_wheels(forked)
    forked.add_fast()
    assert derived(forked, source) == "made"
    folder = tree(forked, source) / package
    assert "4th" in (folder / "greet.py").read_text()
    assert derived(forked, source, "1") == "current"
    fast = small_kit.contents(tree(forked, source))
    done = derive(forked, source, "0")
    assert done.stdout.splitlines()[-1] == "made"
    assert "was changed" not in done.stdout, "nobody but the user has changed anything"
    assert "without the fast set" in done.stdout
    plain = (folder / "greet.py").read_text()
    assert "fourth" in plain
    assert "goodbye" in plain, "the required patches stay"
    assert derived(forked, source, "0") == "current"
    assert derived(forked, source, "1") == "made"
    stamp = ".kit-stamp.json"
    assert {**small_kit.contents(tree(forked, source)), stamp: None} == {**fast, stamp: None}


def test_without_a_fast_patch_the_choice_changes_no_tree(forked: SmallKit) -> None:
    assert derived(forked, "fork") == "made"
    assert derived(forked, "fork", "0") == "current"


def test_a_required_patch_after_the_fast_ones_is_in_no_tree(forked: SmallKit) -> None:
    forked.add_fast()
    forked.series("nncf").write_text("at_once.patch\ngreeting.patch\nending.patch\n")
    for fast in "01":
        assert_user_error(derive(forked, "fork", fast), "A required patch comes after", ": greeting.patch")


# --- deriving from the forks -----------------------------------------------------------------------------


def test_the_forks_tree_is_the_pins_with_the_patches(forked: SmallKit) -> None:
    before = forked.submodules_state()
    forked.configure("core.autocrlf", "true")
    assert derived(forked, "fork") == "made"
    assert derived(forked, "fork") == "current"
    assert forked.submodules_state() == before, "nothing is written to a submodule, not even an object"
    made = tree(forked, "fork")
    assert (made / "nncf" / GREET).read_text() == "first\ngoodbye\nthird\nfourth\nfifth\nsixth\nthe last\n"
    transformers = made / "transformers"
    assert (transformers / "src/transformers/__init__.py").read_text() == "zero\none\ntwo\nthree\nfour\n"
    assert (transformers / RUN_QA).read_text() == "import installed\n\nrun()\n\n"
    # What no patch changes is as it is there: bytes, modes, links.
    windows = "src/transformers/windows.txt"
    assert (transformers / windows).read_bytes() == FILES["transformers"][windows]
    assert os.readlink(str(transformers / LINK)) == LINKED
    assert (made / "nncf/nncf/tool.sh").stat().st_mode & stat.S_IXUSR
    # And only what a run reads is there.
    assert sorted(path.name for path in made.iterdir()) == [".kit-stamp.json", "nncf", "transformers"]
    assert not (made / "nncf/README.md").exists()
    assert not (transformers / "docs").exists()
    assert forked.git("status", "--porcelain") == ""


def test_the_forks_modules_are_found_beside_the_linked_script(forked: SmallKit) -> None:
    derived(forked, "fork")
    code = "from launch.sources.source import Fork; f = Fork(); print(f.programs, *f.python_path, sep='\\n')"
    programs, *path = forked.run(sys.executable, "-c", code).stdout.splitlines()
    made = tree(forked, "fork")
    assert programs == str(made / "transformers" / QA)
    assert (Path(programs) / "gen_hybrid_sparse_qa.py").read_text() == "generate()\n"
    imported = forked.run(
        sys.executable, "-c", "import nncf, transformers", PYTHONPATH=os.pathsep.join(path), at=Path("build")
    )
    assert "transformers/src/transformers/__init__.py" in imported.stderr, "ours: a word there is no name"
    assert (made / "nncf/nncf/__pycache__").is_dir()
    assert programs in path


def test_the_commit_counts_and_not_the_working_tree(forked: SmallKit) -> None:
    folder = forked.submodule("nncf")
    forked.git("update-index", "--assume-unchanged", GREET, at=folder)
    (folder / GREET).write_text("mine\n")
    (folder / "nncf/mine.py").write_text("mine\n")
    assert derived(forked, "fork") == "made"
    assert (tree(forked, "fork") / "nncf" / GREET).read_text().startswith("first\ngoodbye\n")
    assert not (tree(forked, "fork") / "nncf/nncf/mine.py").exists()


def test_a_patch_that_is_for_the_registry_alone_is_left_out(forked: SmallKit) -> None:
    forked.change(forked.patch("nncf", "ending.patch"), "Applies-to: fork;", "Applies-to: registry;")
    derived(forked, "fork")
    assert "sixth" not in (tree(forked, "fork") / "nncf" / GREET).read_text()


@pytest.mark.parametrize(("source", "root"), [("fork", "../../../.."), ("registry", "../../..")])
def test_a_patch_that_leads_out_of_its_repository_is_refused(
    forked: SmallKit, source: str, root: str
) -> None:
    write_wheels(forked)
    forked.change(forked.patch("nncf", "greeting.patch"), GREET, f"{root}/launch/__init__.py")
    assert_user_error(derive(forked, source), "does not apply", "invalid path", "/greeting.patch")
    assert not tree(forked, source).exists()


def test_a_killed_derivation_leaves_the_earlier_tree(forked: SmallKit) -> None:
    greet = tree(forked, "fork") / "nncf" / GREET
    assert forked.run(sys.executable, "-c", DIE).returncode == -signal.SIGKILL
    assert not tree(forked, "fork").exists()
    assert derived(forked, "fork") == "made"
    forked.change(forked.patch("nncf", "greeting.patch"), "+goodbye", "+farewell")
    assert forked.run(sys.executable, "-c", DIE).returncode == -signal.SIGKILL
    assert "goodbye" in greet.read_text()
    assert derived(forked, "fork") == "made"
    assert "farewell" in greet.read_text()
    assert [path.name for path in tree(forked, "fork").parent.iterdir()] == ["fork"]


def test_two_at_once_derive_one_tree(forked: SmallKit) -> None:
    argv = [sys.executable, "-c", DERIVE, "fork", "1"]
    started = [
        subprocess.Popen(argv, cwd=str(forked.root), env=forked.env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0].splitlines()[-1] for process in started]
    assert sorted(said) == ["current", "made"]


# --- deriving from the registry's releases ---------------------------------------------------------------


def test_the_registrys_tree_is_the_releases_with_their_patches(kit: SmallKit) -> None:
    write_wheels(kit)
    assert derived(kit, "registry") == "made"
    assert derived(kit, "registry") == "current"
    made = tree(kit, "registry")
    assert (made / GREET).read_text() == "first\ngoodbye\nthird\nfourth\nfifth\nthe last\n", (
        "not the fork's patch"
    )
    # A patch's paths are the repository's, and a release has no src/.
    assert (made / "transformers/__init__.py").read_text() == "zero\none\ntwo\nthree\nfour\n"
    said = setup(kit, "auto").stderr
    assert said.startswith("source  registry (nncf 1.0, transformers 1.0, 2 patches)\n")


def test_one_patch_serves_both_sources(forked: SmallKit) -> None:
    write_wheels(forked)
    derived(forked, "fork")
    derived(forked, "registry")
    file = "transformers/__init__.py"
    fork = (tree(forked, "fork") / "transformers/src" / file).read_bytes()
    assert fork == (tree(forked, "registry") / file).read_bytes() != FILES["transformers"][f"src/{file}"]


def test_a_wheel_with_other_bytes_is_not_taken(kit: SmallKit) -> None:
    wheel = write_wheels(kit) / "nncf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(str(wheel), "a") as archive:
        archive.writestr("nncf/more.py", "")
    assert_user_error(
        derive(kit, "registry"), "fetching nncf and transformers", "not the locked one", "again"
    )
    assert not tree(kit, "registry").exists()


# --- from either -----------------------------------------------------------------------------------------


def test_a_source_says_its_packages_and_patches(forked: SmallKit) -> None:
    code = (
        "from launch.sources.source import choose_source; s = choose_source('{}'); print(s.packages());"
        " print([f'{{n}}/{{p.path.name}}' for n, found in s.series().items() for p in found])"
    )
    write_wheels(forked)
    both = ["nncf/greeting.patch", "transformers/module.patch"]
    every = [
        "nncf/greeting.patch",
        "nncf/ending.patch",
        "transformers/module.patch",
        "transformers/metric.patch",
    ]
    for source, packages, series in (
        ("fork", {name: forked.pin(name) for name in FILES}, every),
        ("registry", {"nncf": "1.0", "transformers": "1.0"}, both),
    ):
        done = forked.run(sys.executable, "-c", code.format(source))
        assert done.stdout.splitlines() == [str(packages), str(series)], done.stderr


def _edit(folder: Path) -> None:
    file = folder / "__init__.py"
    file.write_text(file.read_text() + "\n# mine\n")


def _edit_to_the_same_length(folder: Path) -> None:
    file = folder / "greet.py"
    file.write_text(file.read_text().replace("goodbye", "goodBye"))


def _delete(folder: Path) -> None:
    (folder / "greet.py").unlink()


def _add(folder: Path) -> None:
    (folder / "mine.py").write_text("mine\n")


def _add_below(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("")


def _link(folder: Path) -> None:
    (folder / "mine").symlink_to(folder.parent)


def _mode(folder: Path) -> None:
    (folder / "greet.py").chmod(0o755)


def _move(folder: Path) -> None:
    (folder / "greet.py").rename(folder / "greeting.py")


SPOILERS = (_edit, _edit_to_the_same_length, _delete, _add, _add_below, _link, _mode, _move)


@pytest.mark.parametrize(("source", "package"), [("fork", "nncf/nncf"), ("registry", "nncf")])
def test_a_tree_that_was_changed_is_derived_again_and_says_so(
    forked: SmallKit, source: str, package: str
) -> None:
    write_wheels(forked)
    derived(forked, source)
    before = small_kit.contents(tree(forked, source))
    stamp = ".kit-stamp.json"
    for spoil in SPOILERS:
        spoil(tree(forked, source) / package)
        done = derive(forked, source)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert said[0].startswith(f"build/src/{source} was changed"), spoil
        assert "make patch-edit" in said[0]
        assert said[-1] == "made"
        after = small_kit.contents(tree(forked, source))
        assert {**after, stamp: None} == {**before, stamp: None}, spoil
        assert derived(forked, source) == "current"


@pytest.mark.parametrize(("source", "package"), [("fork", "nncf/nncf"), ("registry", "nncf")])
def test_what_a_run_leaves_in_a_tree_does_not_count(forked: SmallKit, source: str, package: str) -> None:
    write_wheels(forked)
    derived(forked, source)
    folder = tree(forked, source) / package
    imported = forked.run(sys.executable, "-c", "import nncf", PYTHONPATH=str(folder.parent))
    assert imported.returncode == 0, imported.stderr
    assert list((folder / "__pycache__").iterdir())
    assert derived(forked, source) == "current"
    # A copy that keeps times, as of a whole checkout, is as it was.
    copy = small_kit.copy(forked, forked.root.parent / "copy")
    assert derived(copy, source) == "current"


def test_a_stamp_of_an_earlier_kit_is_no_stamp(forked: SmallKit) -> None:
    derived(forked, "fork")
    stamp = tree(forked, "fork") / ".kit-stamp.json"
    content = json.loads(stamp.read_text())
    for text in (json.dumps({"key": content["key"]}), "{", "[]", "null", ""):
        stamp.write_text(text)
        done = derive(forked, "fork")
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["unpacking", "made"], text


def test_asking_whether_a_real_tree_is_ready_takes_no_time(derived_source: Path) -> None:
    source = Registry()
    assert sum(1 for path in derived_source.rglob("*") if path.is_file()) > 800
    seconds = []
    for _ in range(5):
        started = time.process_time()
        assert source.is_ready()
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05


@pytest.mark.parametrize(("source", "greet"), [("fork", f"nncf/{GREET}"), ("registry", GREET)])
def test_a_tree_follows_its_patches_whole_or_not_at_all(forked: SmallKit, source: str, greet: str) -> None:
    write_wheels(forked)
    derived(forked, source)
    file, patch = tree(forked, source) / greet, forked.patch("nncf", "greeting.patch")
    # Another patch makes another tree.
    forked.change(patch, "+goodbye", "+farewell")
    assert derived(forked, source) == "made"
    earlier = small_kit.contents(tree(forked, source))
    assert "farewell" in file.read_text()
    # One that does not apply is named with the place, and so is one that is not there.
    forked.change(patch, " third", " THIRD")
    state = forked.submodules_state()
    done = derive(forked, source)
    assert_user_error(done, "does not apply", f"{GREET}:1", "patches/nncf/greeting.patch", "make patch-edit")
    patch.unlink()
    assert_user_error(derive(forked, source), "does not exist", "patches/nncf/series: greeting.patch")
    assert small_kit.contents(tree(forked, source)) == earlier
    assert forked.submodules_state() == state
    # Back again, and nothing but the tree is left of it all.
    patch.write_text(PATCHES["nncf"]["greeting.patch"])
    assert derived(forked, source) == "made"
    assert "goodbye" in file.read_text()
    assert [path.name for path in tree(forked, source).parent.iterdir()] == [source]

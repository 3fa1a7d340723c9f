"""The submodules: fetched from their addresses or from a mirror, checked against pins, never changed."""

import configparser
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest

from launch.core import paths

from .. import small_kit
from ..conftest import assert_user_error
from ..small_kit import BRANCHES, FILES, SmallKit


@pytest.fixture
def kit(plain_kit: SmallKit, tmp_path: Path) -> SmallKit:
    """A kit as a plain `git clone` leaves it."""
    return small_kit.copy(plain_kit, tmp_path)


@pytest.fixture
def forked(fetched_kit: SmallKit, tmp_path: Path) -> SmallKit:
    """A kit with its submodules checked out."""
    return small_kit.copy(fetched_kit, tmp_path)


def assert_at_pins(kit: SmallKit) -> None:
    for name, files in FILES.items():
        folder = kit.submodule(name)
        assert kit.git("rev-parse", "HEAD", at=folder).strip() == kit.pin(name)
        assert kit.git("status", "--porcelain", "--ignored", at=folder) == ""
        assert {file: (folder / file).read_bytes() for file in files} == files
    assert kit.git("status", "--porcelain") == ""


def assert_nothing_fetched(kit: SmallKit, name: str) -> None:
    """Assert that a submodule is as it was before: an empty folder, and nothing that is half there."""
    assert list(kit.submodule(name).iterdir()) == []
    assert kit.git("status", "--porcelain") == ""


def hinted(done: "subprocess.CompletedProcess[str]", begin: str) -> List[str]:
    """Return the command that an error advises, from the words ``begin`` on."""
    line = next(line for line in done.stderr.splitlines() if begin in line)
    return shlex.split(line[line.index(begin) :].split("  (")[0].rstrip("."))


# --- from the public addresses ---------------------------------------------------------------------------


def test_make_third_party_checks_out_the_pins_and_nothing_more(kit: SmallKit) -> None:
    kit.do("third_party")
    assert_at_pins(kit)
    for name in FILES:
        folder = kit.submodule(name)
        assert kit.git("rev-list", "--all", at=folder).split() == [kit.pin(name)], "shallow, without the tip"
        assert kit.git("remote", "get-url", "origin", at=folder).strip() == (kit.upstream / name).as_uri()
    # Submodules as git's own: a space says that they are there and at their pins.
    lines = kit.git("submodule", "status").splitlines()
    assert [line.split("(")[0].strip(" ") for line in lines] == [
        f"{kit.pin(name)} third_party/{name}" for name in FILES
    ]
    assert kit.git("submodule", "update", "--init") == ""


def test_a_second_run_only_looks(forked: SmallKit) -> None:
    forked.dead_addresses()
    for name in FILES:
        assert f"third_party/{name}  at {forked.pin(name)[:12]}, up to date" in forked.do("third_party")


def test_git_clone_with_submodules_works(kit: SmallKit, tmp_path: Path) -> None:
    clone = SmallKit(tmp_path / "other", kit.upstream)
    clone.home.mkdir(parents=True)
    # What git refuses of addresses that are folders, it takes from the forks' real ones.
    allowed = ("-c", "protocol.file.allow=always")
    clone.run(
        "git", *allowed, "clone", "--quiet", "--recurse-submodules", str(kit.root), at=clone.home.parent
    )
    assert_at_pins(clone)
    for name in FILES:
        assert clone.git("rev-parse", "--is-shallow-repository", at=clone.submodule(name)) == "true\n"
    assert clone.do("third_party").count("up to date") == len(FILES)
    assert clone.do("patches-check").count("exported again: no difference") == len(FILES)


def test_only_the_missing_submodule_is_fetched(forked: SmallKit) -> None:
    git_directory = forked.root / ".git/modules/third_party/nncf"
    shutil.rmtree(str(forked.submodule("nncf")))
    assert git_directory.is_dir(), "as after rm -r: git still has its own part of it"
    said = forked.do("third_party")
    assert "third_party/nncf  fetching" in said
    assert "third_party/transformers  at" in said
    assert_at_pins(forked)


def test_a_fetch_that_was_killed_before_its_last_step_is_completed(kit: SmallKit) -> None:
    """As after a kill between the checkout's appearance and git's registration of it."""
    kit.do("third_party")
    folder = kit.submodule("nncf")
    git_directory = kit.root / ".git/modules/third_party/nncf"
    (folder / ".git").unlink()
    shutil.move(str(git_directory), str(folder / ".git"))
    kit.git("config", "--file", str(folder / ".git/config"), "--unset", "core.worktree")
    kit.git("config", "--remove-section", "submodule.third_party/nncf")
    assert kit.git("submodule", "status").startswith("-")
    assert "third_party/nncf  at" in kit.do("third_party")
    assert (folder / ".git").is_file()
    assert_at_pins(kit)


def test_two_at_once_wait_for_each_other(kit: SmallKit) -> None:
    command = ["make", "--no-print-directory", "third_party"]
    started = [
        subprocess.Popen(command, cwd=str(kit.root), env=kit.env, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=60)[1] for process in started)
    assert [process.returncode for process in started] == [0, 0], said
    assert said.count("fetching") == said.count("up to date") == len(FILES)
    assert_at_pins(kit)


# --- from a mirror ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forms",
    [
        {"nncf": "--bare", "transformers.git": "--no-bare"},
        {"nncf.git": "--bare", "transformers": "--no-bare"},
    ],
    ids=["nncf-is-bare", "nncf.git-is-bare"],
)
def test_a_mirror_in_every_form_stands_in_for_the_addresses(kit: SmallKit, forms: "dict[str, str]") -> None:
    mirror = kit.home / "my mirrors"
    mirror.mkdir()
    for folder, form in forms.items():
        source = kit.upstream / folder.replace(".git", "")
        kit.git("clone", "--quiet", form, str(source), str(mirror / folder))
    kit.dead_addresses()
    before = small_kit.contents(mirror)
    kit.do("third_party", "MIRROR=../home/my mirrors")
    assert small_kit.contents(mirror) == before
    for name in FILES:
        assert kit.git("rev-parse", "HEAD", at=kit.submodule(name)).strip() == kit.pin(name)
        origin = kit.git("remote", "get-url", "origin", at=kit.submodule(name)).strip()
        assert origin == (kit.home / "nowhere" / name).as_uri(), "git's own commands go to the public address"


def test_a_mirror_may_be_a_link_and_below_home(kit: SmallKit) -> None:
    (kit.home / "mirror").symlink_to(kit.upstream)
    kit.dead_addresses()
    kit.do("third_party", "MIRROR=~/mirror")
    assert kit.git("rev-parse", "HEAD", at=kit.submodule("nncf")).strip() == kit.pin("nncf")


def test_a_mirror_without_the_commit_is_told_how_to_get_it(kit: SmallKit) -> None:
    mirror = kit.home / "mirror"
    for name in FILES:
        kit.git("init", "--quiet", "--bare", str(mirror / f"{name}.git"))
    done = kit.make("third_party", f"MIRROR={mirror}")
    assert_user_error(done, "does not have the commit", kit.pin("nncf"), str(mirror / "nncf.git"))
    assert_nothing_fetched(kit, "nncf")
    # The advice is a command: it works.
    kit.run(*hinted(done, "git -C"))
    done = kit.make("third_party", f"MIRROR={mirror}")
    assert_user_error(done, kit.pin("transformers"), str(mirror / "transformers.git"))
    kit.run(*hinted(done, "git -C"))
    kit.do("third_party", f"MIRROR={mirror}")
    assert_at_pins(kit)


@pytest.mark.parametrize("there", ["nothing", "a folder that is no repository", "a folder of a repository"])
def test_a_mirror_without_git_directories(kit: SmallKit, there: str) -> None:
    mirror = kit.home / "mirror"
    if there != "nothing":
        (mirror / "nncf").mkdir(parents=True)
    if there == "a folder of a repository":
        # It has the commit, but it is not what the mirror's folder is for.
        kit.git("clone", "--quiet", "--bare", str(kit.upstream / "nncf"), str(mirror / ".git"))
        kit.git("config", "core.bare", "false", at=mirror)
    done = kit.make("third_party", f"MIRROR={mirror}")
    assert_user_error(done, "no git directory of nncf", str(mirror / "nncf"), str(mirror / "nncf.git"))
    assert_nothing_fetched(kit, "nncf")
    assert hinted(done, "git clone")[-2:] == [(kit.upstream / "nncf").as_uri(), "nncf.git"]


def test_a_mirror_of_another_users_is_no_riddle(kit: SmallKit) -> None:
    # git's own switch for its tests; the kit's folder is trusted, the mirror is not.
    kit.configure("safe.directory", str(kit.root))
    other = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    asked = kit.run("git", "rev-parse", "--git-dir", at=kit.upstream / "nncf", **other)
    if asked.returncode == 0:
        pytest.skip("this git does not ask who a repository belongs to")
    done = kit.make("third_party", f"MIRROR={kit.upstream}", **other)
    assert_user_error(done, "belongs to another user", str(kit.upstream / "nncf"))
    kit.run(*hinted(done, "git config"))
    assert kit.run("git", "rev-parse", "--git-dir", at=kit.upstream / "nncf", **other).returncode == 0


# --- what goes wrong -------------------------------------------------------------------------------------


def test_no_route(kit: SmallKit) -> None:
    kit.dead_addresses()
    kit.git("commit", "--quiet", "--all", "--message=Dead")
    done = kit.make("third_party")
    assert_user_error(done, "cannot be fetched from file://", "MIRROR=", "SOURCE=registry")
    assert "nowhere/nncf" in done.stderr, "which address"
    assert_nothing_fetched(kit, "nncf")
    kit.do("third_party", f"MIRROR={kit.upstream}")
    assert_at_pins(kit)


def test_a_commit_that_the_address_does_not_have(kit: SmallKit) -> None:
    pin, missing = kit.pin("nncf"), "0123456789" * 4
    kit.change(kit.root / "patches/config.json", pin, missing)
    kit.git("commit", "--quiet", "--all", "--message=Another pin")
    assert_user_error(kit.make("third_party"), "cannot be fetched from", missing)
    assert_nothing_fetched(kit, "nncf")


def test_a_killed_fetch_leaves_no_half_checkout(kit: SmallKit) -> None:
    kit.kill_at_fetch("third_party")
    for name in FILES:
        assert_nothing_fetched(kit, name)
    kit.do("third_party")
    assert_at_pins(kit)
    assert list((kit.root / "build/third_party").iterdir()) == [], "and what the killed one had begun is gone"


def test_a_submodule_at_another_commit(forked: SmallKit) -> None:
    folder = forked.submodule("nncf")
    forked.git("commit", "--quiet", "--allow-empty", "--message=Mine", at=folder)
    mine = forked.git("rev-parse", "HEAD", at=folder).strip()
    done = forked.make("third_party")
    assert_user_error(done, f"at {mine[:12]} and not at its pin", "third_party/nncf", forked.pin("nncf"))
    assert_user_error(forked.launch("patches-check"), "not at its pin")
    assert forked.git("rev-parse", "HEAD", at=folder).strip() == mine
    forked.run(*hinted(done, "git submodule update"))
    assert forked.do("third_party").count("up to date") == len(FILES)


def test_a_submodule_without_a_commit(forked: SmallKit) -> None:
    forked.git("symbolic-ref", "HEAD", "refs/heads/unborn", at=forked.submodule("nncf"))
    assert_user_error(forked.make("third_party"), "no commit", "third_party/nncf")
    # Nor is the kit's own commit taken for the submodule's where git looks above it.
    (forked.submodule("nncf") / ".git").unlink()
    (forked.submodule("nncf") / ".git").mkdir()
    assert_user_error(forked.make("third_party"), "no commit", "third_party/nncf")


@pytest.mark.parametrize("dirt", ["edited", "staged", "deleted"])
def test_local_changes_are_named_and_never_overwritten(forked: SmallKit, dirt: str) -> None:
    folder = forked.submodule("nncf")
    file = folder / "nncf/new.py" if dirt == "staged" else folder / small_kit.GREET
    file.unlink() if dirt == "deleted" else file.write_text("mine\n")
    if dirt == "staged":
        forked.git("add", "nncf/new.py", at=folder)
    before = small_kit.contents(folder)
    done = forked.make("third_party")
    assert_user_error(done, "local changes", str(file.relative_to(folder)), "make patch-edit P=nncf")
    for command in (["patches-check"], ["patch-edit", "--p=nncf"]):
        assert_user_error(forked.launch(*command), "local changes")
    assert small_kit.contents(folder) == before
    forked.run(*hinted(done, "git -C third_party/nncf stash"))
    assert forked.do("third_party").count("up to date") == len(FILES)


def test_what_no_build_reads_is_no_local_change(forked: SmallKit) -> None:
    (forked.submodule("nncf") / "notes.txt").write_text("mine\n")
    assert forked.do("third_party").count("up to date") == len(FILES)
    assert (forked.submodule("nncf") / "notes.txt").read_text() == "mine\n"


def test_a_folder_that_is_no_checkout_is_left_alone(kit: SmallKit) -> None:
    (kit.submodule("nncf") / "mine.txt").write_text("mine\n")
    assert_user_error(kit.make("third_party"), "no checkout", "third_party/nncf", "Move them away")
    assert [path.name for path in kit.submodule("nncf").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("inside_another", [False, True])
def test_a_kit_that_is_no_checkout_has_no_submodules(kit: SmallKit, inside_another: bool) -> None:
    shutil.rmtree(str(kit.root / ".git"))
    if inside_another:
        kit.git("init", "--quiet", at=kit.root.parent)
    assert_user_error(kit.make("third_party"), "no git checkout", str(kit.root), "SOURCE=registry")
    assert list(kit.submodule("nncf").iterdir()) == []


def test_a_broken_map(kit: SmallKit) -> None:
    kit.change(kit.root / "patches/config.json", '"base"', '"basis"')
    assert_user_error(kit.make("third_party"), "'base'", "patches/config.json", "git checkout")


def test_a_hooks_variables_and_a_persons_settings_change_nothing(kit: SmallKit) -> None:
    kit.configure("core.autocrlf", "true")
    elsewhere = kit.home / "elsewhere"
    kit.git("init", "--quiet", str(elsewhere))
    hook = {"GIT_DIR": str(elsewhere / ".git"), "GIT_WORK_TREE": str(elsewhere), "GIT_INDEX_FILE": "mine"}
    kit.do("third_party", **hook)
    assert_at_pins(kit)
    assert [path.name for path in elsewhere.iterdir()] == [".git"]


# --- this repository -------------------------------------------------------------------------------------


def test_the_pins_are_those_of_the_submodules() -> None:
    """``patches/config.json`` and git's index say the same, so that both ways to fetch give one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage", "third_party"],
        cwd=str(paths.REPOSITORY),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    links = {
        path: tuple(words.split()[:2])
        for words, path in (row.split("\t") for row in listed.splitlines())
        if path != "third_party/README.md"
    }
    config = json.loads((paths.PATCHES / "config.json").read_text(encoding="utf-8"))
    assert links == {entry["submodule"]: ("160000", entry["base"]) for entry in config.values()}
    assert list(config) == list(BRANCHES)


def test_the_submodules_addresses() -> None:
    modules = configparser.ConfigParser()
    modules.read_string("".join(line.strip() + "\n" for line in (paths.REPOSITORY / ".gitmodules").open()))
    nncf, transformers = (dict(modules[f'submodule "third_party/{name}"']) for name in FILES)
    assert nncf == {
        "path": "third_party/nncf",
        "url": "https://github.com/openvinotoolkit/nncf",
        "shallow": "true",
    }
    assert transformers == {
        "path": "third_party/transformers",
        "url": "https://github.com/vuiseng9/transformers",
        "branch": "gen-hybrid-sparse",
        "shallow": "true",
    }

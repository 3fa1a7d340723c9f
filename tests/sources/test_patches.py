"""The patch series: what makes one sound, and changing patches with git commits."""

import importlib
import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from launch.core import git, paths
from launch.core.errors import KitError
from launch.core.progress import format_count
from launch.sources import patch_work, patches, third_party

from .. import small_kit
from ..conftest import assert_user_error
from ..small_kit import BOTH, FIELDS, GREET, PATCHES, RUN_QA, SmallKit, diff, message, patch


@pytest.fixture
def kit(plain_kit: SmallKit) -> Iterator[SmallKit]:
    """A kit whose submodules are not checked out."""
    yield plain_kit
    plain_kit.reset()


@pytest.fixture
def forked(fetched_kit: SmallKit) -> Iterator[SmallKit]:
    """A kit whose submodules are checked out.  The tests share it: nothing here may change a submodule."""
    yield fetched_kit
    fetched_kit.reset()


@pytest.fixture(scope="module")
def source(fetched_kit: SmallKit) -> Tuple[object, ...]:
    """The state of the submodules, which has to stay."""
    return fetched_kit.submodules_state()


def edit(kit: SmallKit, name: str) -> Path:
    """Make the scratch clone and return it."""
    done = kit.launch("patch-edit", f"--p={name}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"build/patches/{name} is ")
    return kit.clone(name)


def opened(kit: SmallKit, name: str) -> Path:
    """Return the scratch clone of the patches as they were built: made once by the command, then copied."""
    made = kit.root.parent / "clones" / name
    if made.exists():
        kit.clone(name).parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(made), str(kit.clone(name))], check=True)
    else:
        made.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(edit(kit, name)), str(made)], check=True)
    return kit.clone(name)


def export(kit: SmallKit, name: str) -> List[str]:
    """Write the scratch clone's commits back and return the patches' file names."""
    done = kit.launch("patch-export", f"--p={name}")
    assert done.returncode == 0, done.stderr
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert kit.series(name).read_text().splitlines() == names
    assert sorted(names) == sorted(path.name for path in kit.series(name).parent.glob("*.patch"))
    return names


def commit(kit: SmallKit, clone: Path, file: str, text: str, subject: str, **fields: str) -> None:
    """Write a file in the clone and commit it with what a patch has to say."""
    path = clone / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    kit.git("add", "--all", at=clone)
    kit.git("commit", "--quiet", f"--message={message(subject, **fields)}", at=clone)


def assert_sound(kit: SmallKit) -> None:
    done = kit.launch("patches-check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exported again: no difference") == len(PATCHES)


# --- patches-check without sources -----------------------------------------------------------------------


def test_what_patches_import_of_the_kit_is_there() -> None:
    found = [
        match.groups()
        for path in paths.PATCHES.glob("*/*.patch")
        for match in re.finditer(r"^\+ *from (launch\S*) import (\w+)", path.read_text("utf-8"), re.M)
    ]
    assert found
    for module, name in found:
        assert hasattr(importlib.import_module(module), name), (module, name)


def test_check_says_what_it_could_not_check(kit: SmallKit) -> None:
    assert kit.do("patches-check").splitlines() == [
        f"{name}: 2 patches read; third_party/{name} is not checked out, so none was applied"
        for name in PATCHES
    ]


def _twice(kit: SmallKit) -> None:
    kit.change(kit.series("nncf"), "ending.patch\n", "ending.patch\ngreeting.patch\n")


def _unlisted(kit: SmallKit) -> None:
    kit.change(kit.series("nncf"), "ending.patch\n", "")


def _no_series(kit: SmallKit) -> None:
    kit.series("nncf").unlink()


def _missing(kit: SmallKit) -> None:
    kit.patch("nncf", "ending.patch").unlink()


def _commented(kit: SmallKit) -> None:
    kit.change(kit.series("nncf"), "ending.patch\n", "ending.patch  # last\n")


def _fieldless(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), "Remove-when: upstream says it too\n", "")


def _short(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), "@@ -5,2 +5,3 @@", "@@ -5,9 +5,10 @@")


def _garbled(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), "+sixth", "sixth")


def _diffless(kit: SmallKit) -> None:
    kit.patch("nncf", "ending.patch").write_text(patch("Change nothing", ""))


def _no_text(kit: SmallKit) -> None:
    kit.patch("nncf", "ending.patch").write_bytes(PATCHES["nncf"]["ending.patch"].encode("utf-16"))


def _other_set(kit: SmallKit) -> None:
    kit.change(kit.add_fast(), "Optional-set: fast", "Optional-set: small")


def _required_after_fast(kit: SmallKit) -> None:
    kit.add_fast()
    kit.series("nncf").write_text("greeting.patch\nat_once.patch\nending.patch\n")


def _no_fork(kit: SmallKit) -> None:
    (kit.root / "patches/torch").mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_twice, ["names a patch twice", "patches/nncf/series: greeting.patch"]),
        (_unlisted, ["is in no series", "patches/nncf/ending.patch", "Add it to patches/nncf/series"]),
        (_no_series, ["is in no series", "patches/nncf/ending.patch, patches/nncf/greeting.patch"]),
        (_missing, ["does not exist", "patches/nncf/series: ending.patch"]),
        (_commented, ["does not exist", "patches/nncf/series: ending.patch  # last", "a file name a line"]),
        (_fieldless, ["no Remove-when", "patches/nncf/ending.patch"]),
        (_short, ["no unified diff", "corrupt patch at line 17", "patches/nncf/ending.patch"]),
        (_garbled, ["no unified diff", "corrupt patch at line 15", "patches/nncf/ending.patch"]),
        (_diffless, ["changes nothing", "patches/nncf/ending.patch"]),
        (_no_text, ["not UTF-8", "patches/nncf/ending.patch"]),
        (
            _other_set,
            ["'Optional-set: small' is not 'Optional-set: fast'", "patches/nncf/at_once.patch", "only where"],
        ),
        (
            _required_after_fast,
            ["A required patch comes after one of the set 'fast'", "patches/nncf/series: ending.patch"],
        ),
        (_no_fork, ["patches/torch belongs to no fork", "patches/config.json"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_check_finds(kit: SmallKit, spoil: Callable[[SmallKit], None], words: List[str]) -> None:
    spoil(kit)
    assert_user_error(kit.launch("patches-check"), *words)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        *(({name.replace("-", "_"): ""}, f"no {name}") for name in FIELDS),
        ({"Applies_to": "everything"}, "Applies-to names neither fork nor registry"),
        ({"Applies_to": "fork and hub"}, "Applies-to names neither fork nor registry"),
        ({}, ""),
    ],
)
def test_what_a_patch_has_to_say(fields: Dict[str, str], problem: str) -> None:
    changes = PATCHES["nncf"]["greeting.patch"].split("\n\n")[-1]
    said = patches.parse_patch(Path("a.patch"), f"Subject: {message('Say it', **fields)}\n{changes}")
    assert patches.find_problems(said) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("Optional-set: fast", True),
        ("", False),
        ("Optional-set: small", None),
        ("Optional-set: fast and small", None),
        ("Optional-set: fast\n and small", None),
        ("Optional-set: fast\nOptional-set: fast", None),
        ("Optional-set: Fast", None),
        ("Optional-set:fast", None),
        ("Optional-set:", None),
        ("Optional-Set: fast", None),
        ("optional set: fast", None),
        (" Optional-set: fast", None),
    ],
)
def test_a_patch_is_of_the_optional_set_or_says_nothing_of_it(
    tmp_path: Path, line: str, fast: Optional[bool]
) -> None:
    file = tmp_path / "a.patch"
    whole = PATCHES["nncf"]["greeting.patch"]
    file.write_text(whole.replace(f"Applies-to: {BOTH}\n", f"Applies-to: {BOTH}\n{line}\n"))
    if fast is None:
        with pytest.raises(KitError, match="Optional-set") as raised:
            patches.read_patch(file)
        assert raised.value.where
        assert "Optional-set: fast" in raised.value.hint
    else:
        assert patches.read_patch(file).fast == fast


@pytest.mark.parametrize(
    ("members", "index"),
    [("", None), ("rr", None), ("ff", None), ("rrff", None), ("fr", 1), ("rffr", 3), ("rfrf", 2)],
)
def test_required_patches_come_first(members: str, index: Optional[int]) -> None:
    found = [
        patches.parse_patch(Path(f"{place}.patch"), "Optional-set: fast\n" if member == "f" else "")
        for place, member in enumerate(members)
    ]
    if index is None:
        patches.check_order(found, "series")
    else:
        with pytest.raises(KitError) as raised:
            patches.check_order(found, "series")
        assert raised.value.where.startswith(f"series: {index}.patch")


def test_a_patch_has_a_subject_and_a_reason(tmp_path: Path) -> None:
    whole = patch("Say it", PATCHES["nncf"]["greeting.patch"].split("\n\n")[-1])
    for old, new, problem in (
        ("Subject: Say it", "Say it", "no subject"),
        ("Subject: Say it", "Subject: ", "no subject"),
        ("Subject: Say it", "Subject: " + "s" * 73, "longer than 72"),
        ("A test wants it.\n", "", "no reason"),
    ):
        file = tmp_path / "a.patch"
        file.write_text(whole.replace(old, new))
        with pytest.raises(KitError, match=problem):
            patches.read_patch(file)


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("fork", ["fork"]),
        ("registry", ["registry"]),
        ("fork and registry", ["fork", "registry"]),
        ("fork; the registry has none", ["fork"]),
        ("registry (not the fork)", ["registry"]),
    ],
)
def test_where_a_patch_applies(tmp_path: Path, text: str, sources: List[str]) -> None:
    file = tmp_path / "a.patch"
    file.write_text(PATCHES["nncf"]["greeting.patch"].replace(BOTH, text))
    read = patches.read_patch(file)
    assert [source for source in patches.SOURCES if source in read.sources] == sources


# --- patches-check with sources --------------------------------------------------------------------------


def test_check_applies_every_patch_and_exports_it_again(forked: SmallKit, source: Tuple[object, ...]) -> None:
    assert forked.do("patches-check").splitlines() == [
        f"{name}: 2 patches read, applied to {forked.pin(name)[:12]} and exported again: no difference"
        for name in PATCHES
    ]
    assert forked.submodules_state() == source, "nothing is written to a submodule, not even an object"


def test_check_applies_the_series_without_and_with_the_optional_set(forked: SmallKit) -> None:
    forked.add_fast()
    assert forked.do("patches-check").splitlines()[0] == (
        f"nncf: 3 patches (1 of the set fast) read, applied to {forked.pin('nncf')[:12]} without and with the"
        " set fast and exported again: no difference"
    )


def test_check_finds_a_required_patch_that_builds_on_the_optional_set(forked: SmallKit) -> None:
    forked.add_fast()
    between = patch("Say it louder", diff(GREET, "@@ -3,3 +3,3 @@\n third\n-4th\n+4TH\n fifth\n"))
    forked.patch("nncf", "between.patch").write_text(between)
    series = forked.series("nncf")
    series.write_text(series.read_text() + "between.patch\n")
    # Where it belongs it does not apply, and nowhere else may it stand.
    assert_user_error(forked.launch("patches-check"), "A required patch comes after", ": between.patch")
    series.write_text("greeting.patch\nending.patch\nbetween.patch\nat_once.patch\n")
    assert_user_error(forked.launch("patches-check"), "does not apply", "patches/nncf/between.patch")


def test_the_optional_set_comes_back_as_it_went(forked: SmallKit) -> None:
    forked.add_fast()
    before = forked.patch_bytes()
    clone = edit(forked, "nncf")
    assert "\nOptional-set: fast\n" in forked.git("log", "-1", "--format=%B", at=clone)
    assert export(forked, "nncf") == ["greeting.patch", "ending.patch", "at_once.patch"]
    assert forked.patch_bytes() == before
    # A required commit on top of it is refused, and is in order where the advice puts it.
    commit(forked, clone, "nncf/other.py", "other\n", "Other")
    done = forked.launch("patch-export", "--p=nncf")
    where = "build/patches/nncf: other.patch (Other)"
    assert_user_error(done, "A required patch comes after", where, "git rebase -i")
    assert forked.patch_bytes() == before
    swap = "sed -i '3{h;d};4G'"
    forked.git("rebase", "--quiet", "-i", "refs/kit/base", at=clone, GIT_SEQUENCE_EDITOR=swap)
    assert export(forked, "nncf") == ["greeting.patch", "ending.patch", "other.patch", "at_once.patch"]
    assert_sound(forked)


def _fuzzy(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), " the last", " the least")


def _other_spaces(kit: SmallKit) -> None:
    kit.configure("apply.ignoreWhitespace", "change")
    kit.change(kit.patch("nncf", "ending.patch"), " the last", " the   last")


def _other_order(kit: SmallKit) -> None:
    kit.patch("nncf", "between.patch").write_text(
        patch("Say it louder", diff(GREET, "@@ -1,3 +1,3 @@\n first\n-goodbye\n+GOODBYE\n third\n"))
    )
    kit.series("nncf").write_text("between.patch\ngreeting.patch\nending.patch\n")


def _outside(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), GREET, "../../launch/core/errors.py")


def _outside_without_a_header(kit: SmallKit) -> None:
    # Not in a line that begins with 'diff --git', but git would apply it.
    text = "--- a/../../launch/core/errors.py\n+++ b/../../launch/core/errors.py\n@@ -1 +1 @@\n-a\n+b\n"
    with kit.patch("nncf", "ending.patch").open("a") as file:
        file.write(text)


def _offset(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), "@@ -5,2 +5,3 @@", "@@ -4,2 +4,3 @@")


def _more_context(kit: SmallKit) -> None:
    old, new = "@@ -5,2 +5,3 @@\n fifth", "@@ -4,3 +4,4 @@\n fourth\n fifth"
    kit.change(kit.patch("nncf", "ending.patch"), old, new)


def _heading(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), "+5,3 @@", "+5,3 @@ third")


def _space_before_diff(kit: SmallKit) -> None:
    kit.change(kit.patch("nncf", "ending.patch"), "\n\ndiff", "\n\n\ndiff")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_fuzzy, ["does not apply", f"{GREET}:5", "patches/nncf/ending.patch"]),
        (_other_spaces, ["does not apply", f"{GREET}:5", "patches/nncf/ending.patch"]),
        (_other_order, ["does not apply", f"{GREET}:1", "patches/nncf/between.patch"]),
        (_outside, ["does not apply", "../../launch/core/errors.py", "patches/nncf/ending.patch"]),
        (_outside_without_a_header, ["does not apply", "../../launch/core/errors.py", "/ending.patch"]),
        (_offset, ["other bytes", "'@@ -4,2 +4,3 @@' in the file, '@@ -5,2 +5,3 @@' exported", ", line 13"]),
        (_more_context, ["other bytes", "patches/nncf/ending.patch, line 13"]),
        (_heading, ["other bytes", "'@@ -5,2 +5,3 @@ third' in the file"]),
        (_space_before_diff, ["other bytes", "patches/nncf/ending.patch, line 10"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_check_with_sources_finds(
    forked: SmallKit, source: Tuple[object, ...], spoil: Callable[[SmallKit], None], words: List[str]
) -> None:
    spoil(forked)
    assert_user_error(forked.launch("patches-check"), *words)
    assert forked.submodules_state() == source


def test_the_advice_for_other_bytes_mends_them(forked: SmallKit) -> None:
    before = forked.patch_bytes()
    for spoil in (_offset, _heading, _space_before_diff):
        spoil(forked)
        assert_user_error(
            forked.launch("patches-check"), "make patch-edit P=nncf && make patch-export P=nncf"
        )
        edit(forked, "nncf")
        export(forked, "nncf")
        assert forked.patch_bytes() == before


# --- from patches to commits and back --------------------------------------------------------------------


def test_each_patch_is_a_commit_on_the_pin(forked: SmallKit, source: Tuple[object, ...]) -> None:
    assert "make patch-export P=nncf" in forked.do("patch-edit", "P=nncf")
    clone = forked.clone("nncf")
    commits = forked.git("log", "--reverse", "--format=%P %s", at=clone).splitlines()
    assert commits[0] == " Pinned"
    assert [line.split(" ", 1)[1] for line in commits[1:]] == ["Say goodbye", "Go on after the fifth"]
    assert forked.git("rev-parse", "HEAD~2", at=clone).strip() == forked.pin("nncf")
    assert "Remove-when: upstream says it too" in forked.git("log", "-1", "--format=%B", at=clone)
    assert (clone / GREET).read_text() == "first\ngoodbye\nthird\nfourth\nfifth\nsixth\nthe last\n"
    assert forked.git("status", "--porcelain", at=clone) == ""
    forked.do("patch-export", "P=nncf")
    assert forked.submodules_state() == source


HOSTILE = {
    # What people have configured, and what would change a diff, a commit or a file, or run something.
    "apply.whitespace": "fix",
    "color.ui": "always",
    "commit.gpgSign": "true",
    "commit.cleanup": "strip",
    "core.autocrlf": "true",
    "core.quotePath": "true",
    "diff.algorithm": "histogram",
    "diff.context": "7",
    "diff.external": "false",
    "diff.interHunkContext": "20",
    "diff.mnemonicPrefix": "true",
    "diff.noprefix": "true",
    "diff.suppressBlankEmpty": "true",
    "i18n.commitEncoding": "ISO-8859-1",
    "i18n.logOutputEncoding": "ISO-8859-1",
    "init.defaultBranch": "trunk",
    "log.showSignature": "true",
    "status.showUntrackedFiles": "no",
    "user.useConfigOnly": "true",
}


def test_nothing_of_the_users_changes_a_byte(forked: SmallKit, source: Tuple[object, ...]) -> None:
    before = forked.patch_bytes()
    for key, value in HOSTILE.items():
        forked.configure(key, value)
    hooks = forked.home / "hooks"
    hooks.mkdir()
    for name in ("prepare-commit-msg", "commit-msg", "pre-commit", "post-checkout", "post-commit"):
        (hooks / name).write_text('#!/bin/sh\necho spoilt >> "${1:-/dev/null}"\nexit 1\n')
        (hooks / name).chmod(0o755)
    forked.configure("core.hooksPath", str(hooks))
    # As in a hook of the kit's own repository.
    hook = {
        "GIT_DIR": str(forked.root / ".git"),
        "GIT_INDEX_FILE": str(forked.root / ".git/index"),
        "GIT_DIFF_OPTS": "--unified=5",
        "GIT_EXTERNAL_DIFF": "false",
    }
    for name in PATCHES:
        for command in ("patch-edit", "patch-export"):
            done = forked.launch(command, f"--p={name}", **hook)
            assert done.returncode == 0, done.stderr
    done = forked.launch("patches-check", **hook)
    assert done.returncode == 0, done.stderr
    assert forked.patch_bytes() == before
    for key in (*HOSTILE, "core.hooksPath"):
        forked.git("config", "--global", "--unset-all", key)
    assert forked.submodules_state() == source
    assert forked.git("status", "--porcelain") == ""


def test_reorder(forked: SmallKit) -> None:
    clone = opened(forked, "nncf")
    first, second = forked.git("rev-list", "--reverse", "HEAD~2..HEAD", at=clone).split()
    forked.git("reset", "--quiet", "--hard", "HEAD~2", at=clone)
    forked.git("cherry-pick", second, first, at=clone)
    assert export(forked, "nncf") == ["ending.patch", "greeting.patch"]
    assert forked.patch_bytes()["nncf/ending.patch"].decode() == PATCHES["nncf"]["ending.patch"]
    assert_sound(forked)


def test_drop(forked: SmallKit) -> None:
    clone = opened(forked, "nncf")
    forked.git("rebase", "--quiet", "--onto", "HEAD~2", "HEAD~1", at=clone)
    assert export(forked, "nncf") == ["ending.patch"]
    forked.git("reset", "--quiet", "--hard", "HEAD~1", at=clone)
    assert export(forked, "nncf") == []
    assert forked.series("nncf").read_text() == ""
    done = forked.launch("patches-check")
    assert done.stdout.startswith("nncf: 0 patches read, applied")


def test_add(forked: SmallKit) -> None:
    clone = opened(forked, "transformers")
    commit(forked, clone, "src/transformers/new.py", "new\n", "Ship a file: a new one, of one line")
    assert export(forked, "transformers") == [
        "module.patch",
        "metric.patch",
        "ship_a_file_a_new_one_of_one_line.patch",
    ]
    added = forked.patch("transformers", "ship_a_file_a_new_one_of_one_line.patch").read_text()
    path = "src/transformers/new.py"
    header = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    assert added == patch("Ship a file: a new one, of one line", header + "@@ -0,0 +1 @@\n+new\n")
    assert_sound(forked)


def test_amend_and_retitle(forked: SmallKit) -> None:
    clone = opened(forked, "transformers")
    forked.change(clone / RUN_QA, "installed", "installed_first")
    forked.git("commit", "--quiet", "--all", "--amend", "--no-edit", at=clone)
    assert export(forked, "transformers") == ["module.patch", "metric.patch"]
    whole = PATCHES["transformers"]["metric.patch"]
    assert forked.patch("transformers", "metric.patch").read_text() == whole.replace(
        "installed", "installed_first"
    )
    # A file is named after what it was called first; another subject is another patch.
    forked.git("commit", "--quiet", "--amend", f"--message={message('Fetch less')}", at=clone)
    assert export(forked, "transformers") == ["module.patch", "fetch_less.patch"]
    assert_sound(forked)


UNUSUAL = {
    "src/transformers/windows.txt": "ä one\r\nTWO\r\nthree\r\n",
    "src/transformers/a name with spaces.py": "new\n",
    "src/transformers/ünïcode\tand\ttabs.py": "new\n",
    "src/transformers/no newline.py": "last line",
    "src/transformers/empty.py": "",
}


def test_unusual_files_come_back_as_they_went(forked: SmallKit) -> None:
    clone = opened(forked, "transformers")
    for number, (file, text) in enumerate(UNUSUAL.items()):
        commit(forked, clone, file, text, f"Do the unusual, {number}")
    export(forked, "transformers")
    once = forked.patch_bytes()
    assert_sound(forked)
    clone = edit(forked, "transformers")
    assert {file: (clone / file).read_bytes() for file in UNUSUAL} == {
        file: text.encode() for file, text in UNUSUAL.items()
    }
    export(forked, "transformers")
    assert forked.patch_bytes() == once


def test_links_modes_and_removals_come_back_as_they_went(forked: SmallKit) -> None:
    clone = opened(forked, "nncf")
    (clone / "nncf/link.py").symlink_to("greet.py")
    (clone / "nncf/tool.sh").chmod(0o644)
    (clone / "README.md").unlink()
    commit(forked, clone, "nncf/run.sh", "#!/bin/sh\n", "Change everything but text")
    after = small_kit.contents(clone)
    export(forked, "nncf")
    assert_sound(forked)
    assert small_kit.contents(edit(forked, "nncf")) == after


# --- work is not lost, and nothing half is written -------------------------------------------------------


def _commit_more(kit: SmallKit, clone: Path) -> None:
    commit(kit, clone, GREET, "mine\n", "Mine")


def _commit_and_step_back(kit: SmallKit, clone: Path) -> None:
    kit.git("checkout", "--quiet", "-b", "mine", at=clone)
    _commit_more(kit, clone)
    kit.git("checkout", "--quiet", "-", at=clone)


def _edit_file(kit: SmallKit, clone: Path) -> None:
    (clone / GREET).write_text("mine\n")


def _new_file(kit: SmallKit, clone: Path) -> None:
    kit.configure("status.showUntrackedFiles", "no")
    (clone / "mine.py").write_text("mine\n")


def _stash(kit: SmallKit, clone: Path) -> None:
    _edit_file(kit, clone)
    kit.git("stash", at=clone)


@pytest.mark.parametrize(
    "work",
    [_commit_more, _commit_and_step_back, _edit_file, _new_file, _stash],
    ids=lambda work: work.__name__,
)
def test_nothing_removes_unexported_work(forked: SmallKit, work: Callable[[SmallKit, Path], None]) -> None:
    clone = opened(forked, "nncf")
    work(forked, clone)
    before = small_kit.contents(clone), forked.git("for-each-ref", at=clone)
    for words in (["patch-edit", "--p=nncf"], ["clean"]):
        done = forked.launch(*words)
        assert_user_error(done, "not in patches/ yet", "build/patches/nncf", "make patch-export P=nncf")
    assert (small_kit.contents(clone), forked.git("for-each-ref", at=clone)) == before


def test_an_export_that_was_undone_in_patches_is_work_again(forked: SmallKit) -> None:
    clone = edit(forked, "nncf")
    commit(forked, clone, GREET, "mine\n", "Mine")
    before = forked.patch_bytes()
    export(forked, "nncf")
    (forked.patch("nncf", "mine.patch")).unlink()
    forked.series("nncf").write_text(
        "".join(line for line in forked.series("nncf").open() if line != "mine.patch\n")
    )
    assert forked.patch_bytes() == before
    for words in (["patch-edit", "--p=nncf"], ["clean"]):
        assert_user_error(forked.launch(*words), "not in patches/ yet")
    assert clone.is_dir()


def test_an_export_that_was_killed_before_the_series_is_completed(forked: SmallKit) -> None:
    clone, series = edit(forked, "nncf"), forked.series("nncf")
    noted = clone / ".git" / patch_work._SUMS
    earlier, sums = series.read_bytes(), noted.read_bytes()
    commit(forked, clone, GREET, "mine\n", "Mine")
    export(forked, "nncf")
    whole = forked.patch_bytes()
    series.write_bytes(earlier)
    noted.write_bytes(sums)
    forked.git("update-ref", "refs/kit/exported", "HEAD~1", at=clone)
    assert export(forked, "nncf")[-1] == "mine.patch"
    assert forked.patch_bytes() == whole


def test_edit_begins_again_where_nothing_is_lost(forked: SmallKit) -> None:
    before = small_kit.contents(edit(forked, "nncf"))
    assert small_kit.contents(edit(forked, "nncf")) == before
    commit(forked, forked.clone("nncf"), GREET, "mine\n", "Mine")
    export(forked, "nncf")
    assert (edit(forked, "nncf") / GREET).read_text() == "mine\n"
    assert list(forked.clone("nncf").parent.iterdir()) == [forked.clone("nncf")]


def test_edit_with_a_failing_patch_keeps_the_earlier_clone(
    forked: SmallKit, source: Tuple[object, ...]
) -> None:
    before = small_kit.contents(edit(forked, "nncf"))
    _fuzzy(forked)
    done = forked.launch("patch-edit", "--p=nncf")
    assert_user_error(done, "does not apply", f"{GREET}:5", "patches/nncf/ending.patch")
    assert small_kit.contents(forked.clone("nncf")) == before
    assert list(forked.clone("nncf").parent.iterdir()) == [forked.clone("nncf")]
    assert forked.submodules_state() == source


def _no_fields(kit: SmallKit, clone: Path) -> None:
    (clone / GREET).write_text("mine\n")
    kit.git("commit", "--quiet", "--all", "--message=Mine\n\nBecause.", at=clone)


def _no_change(kit: SmallKit, clone: Path) -> None:
    kit.git("commit", "--quiet", "--allow-empty", f"--message={message('Mine')}", at=clone)


def _binary(kit: SmallKit, clone: Path) -> None:
    commit(kit, clone, "nncf/data.bin", "\0\1", "Mine")


def _latin_1(kit: SmallKit, clone: Path) -> None:
    commit(kit, clone, GREET, b"\xe4\n".decode("utf-8", "surrogateescape"), "Mine")


def _same_subject(kit: SmallKit, clone: Path) -> None:
    commit(kit, clone, GREET, "mine\n", "Say goodbye")


def _fixup(kit: SmallKit, clone: Path) -> None:
    (clone / GREET).write_text("mine\n")
    kit.git("commit", "--quiet", "--all", "--fixup=HEAD~1", at=clone)


def _uncommitted(kit: SmallKit, clone: Path) -> None:
    (clone / GREET).write_text("mine\n")
    (clone / "nncf/tool.sh").write_text("mine\n")


def _merge(kit: SmallKit, clone: Path) -> None:
    _commit_and_step_back(kit, clone)
    commit(kit, clone, "nncf/other.py", "other\n", "Other")
    kit.git("merge", "--quiet", "--no-edit", "mine", at=clone)


def _rebase(kit: SmallKit, clone: Path) -> None:
    # As with 'edit' in front of the first commit: the second is not there at this moment.
    editor = "sed -i 1s/^pick/edit/"
    kit.git("rebase", "--quiet", "--interactive", "HEAD~2", at=clone, GIT_SEQUENCE_EDITOR=editor)
    (clone / GREET).write_text("mine\n")
    kit.git("commit", "--quiet", "--all", "--amend", "--no-edit", at=clone)


def _elsewhere(kit: SmallKit, clone: Path) -> None:
    kit.git("checkout", "--quiet", "--orphan", "other", at=clone)
    kit.git("commit", "--quiet", f"--message={message('Mine')}", at=clone)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (
            _no_fields,
            ["no Output-bytes; no Upstream-status; no Remove-when; no Applies-to", ": Mine", "--amend"],
        ),
        (_no_change, ["it changes nothing", ": Mine"]),
        (_binary, ["no text", ": Mine"]),
        (_latin_1, ["not UTF-8", ": Mine"]),
        (_same_subject, ["same name, greeting.patch", "Say goodbye"]),
        (_fixup, ["no Output-bytes", ": fixup! Say goodbye"]),
        (_uncommitted, ["in no commit: nncf/greet.py and 1 more", "Commit them"]),
        (_merge, ["no straight line", "git rebase --onto"]),
        (_rebase, ["not done", "git rebase --continue"]),
        (_elsewhere, ["no straight line", "git rebase --onto"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_export_refuses_and_writes_nothing(
    forked: SmallKit, work: Callable[[SmallKit, Path], None], words: List[str]
) -> None:
    before = forked.patch_bytes()
    clone = opened(forked, "nncf")
    # The earlier commits are changed too: not even what is sound in itself is written.
    forked.change(clone / GREET, "goodbye", "farewell")
    forked.git("commit", "--quiet", "--all", "--amend", "--no-edit", at=clone)
    work(forked, clone)
    assert_user_error(forked.launch("patch-export", "--p=nncf"), *words)
    assert forked.patch_bytes() == before


def test_the_advice_for_a_merge_mends_it(forked: SmallKit) -> None:
    clone = opened(forked, "nncf")
    _merge(forked, clone)
    done = forked.launch("patch-export", "--p=nncf")
    advice = next(line for line in done.stderr.splitlines() if "git rebase" in line)
    forked.git(*advice[advice.index("rebase") :].split(), at=clone)
    names = export(forked, "nncf")
    assert names[:2] == ["greeting.patch", "ending.patch"]
    assert sorted(names[2:]) == ["mine.patch", "other.patch"]
    assert_sound(forked)


def test_export_undoes_no_change_to_patches(forked: SmallKit) -> None:
    """Somebody else's change, pulled while the clone was there, is not overwritten by what the clone has."""
    clone = opened(forked, "nncf")
    commit(forked, clone, "nncf/other.py", "other\n", "Mine")
    theirs = PATCHES["nncf"]["ending.patch"].replace("+sixth", "+theirs")
    forked.patch("nncf", "ending.patch").write_text(theirs)
    forked.patch("nncf", "greeting.patch").unlink()
    forked.series("nncf").write_text("ending.patch\n")
    before = forked.patch_bytes()
    done = forked.launch("patch-export", "--p=nncf")
    assert_user_error(done, "would undo", "ending.patch, series", "git checkout -- patches/nncf")
    assert forked.patch_bytes() == before
    # The advice is two lines of shell: they work.
    advice = [line.strip() for line in done.stderr.splitlines()[-2:]]
    for line in advice:
        run = forked.run("sh", "-c", line)
        assert run.returncode == 0, (line, run.stdout, run.stderr)
    assert export(forked, "nncf") == ["ending.patch", "mine.patch"]
    assert forked.patch("nncf", "ending.patch").read_text() == theirs
    assert_sound(forked)


def test_edit_needs_the_source_and_nothing_else(kit: SmallKit) -> None:
    assert_user_error(
        kit.launch("patch-edit", "--p=nncf"), "not checked out", "third_party/nncf", "make third_party"
    )
    assert_user_error(kit.launch("patch-export", "--p=nncf"), "no scratch clone", "make patch-edit P=nncf")
    assert_user_error(kit.make("patch-edit"), "No fork was named", "P=", "nncf, transformers")
    assert_user_error(kit.make("patch-export", "P=torch"), "no fork 'torch'", "P=torch", "nncf, transformers")
    assert not kit.clone("nncf").parent.exists()


# --- this repository's patches ---------------------------------------------------------------------------


def real() -> List[Tuple[str, Path]]:
    return list(
        itertools.chain.from_iterable(
            [(fork.name, patch.path) for patch in patches.read_series(fork.name)]
            for fork in third_party.read_forks()
        )
    )


def test_the_series_is_sound(kit: SmallKit) -> None:
    """Without sources, so that it is the same everywhere."""
    for file in kit.patch_bytes():
        (kit.root / "patches" / file).unlink()
    for path in [paths.PATCHES / "config.json", *paths.PATCHES.glob("*/*")]:
        (kit.root / "patches" / path.relative_to(paths.PATCHES)).write_bytes(path.read_bytes())
    read = {name: patches.read_series(name) for name in PATCHES}
    fast = {
        name: [one for one in found if one.fields.get(patches.OPTIONAL_SET)] for name, found in read.items()
    }
    counts = [
        f"{name}: {format_count(len(found), 'patch', 'patches')}"
        + (f" ({len(fast[name])} of the set fast)" if fast[name] else "")
        + " read"
        for name, found in read.items()
    ]
    done = kit.launch("patches-check")
    assert done.returncode == 0, done.stderr
    assert [line.split(";")[0] for line in done.stdout.splitlines()] == counts
    assert len(real()) == len(list(paths.PATCHES.glob("*/*.patch"))) > 0


def test_sparsify_params_is_one_patch_for_both_sources() -> None:
    found = [
        patches.read_patch(path) for _, path in real() if "def sparsify_params" in path.read_text("utf-8")
    ]
    assert [patch.path.relative_to(paths.PATCHES).as_posix() for patch in found] == [
        "nncf/sparsify_params.patch"
    ]
    assert all(source in found[0].sources for source in patches.SOURCES)


def test_the_registrys_tree_has_every_patch_that_is_for_it(derived_source: Path, tmp_path: Path) -> None:
    """The last one can be taken away first, and so on."""
    copy = tmp_path / "tree"
    shutil.copytree(str(derived_source), str(copy), ignore=shutil.ignore_patterns("__pycache__"))
    packed = {fork.name: fork.packed for fork in third_party.read_forks()}
    applied = 0
    for name, path in reversed(real()):
        if "registry" in patches.read_patch(path).sources:
            strip = 1 + len(Path(packed[name]).parts)
            done = git.run_git(["apply", "--reverse", f"-p{strip}", str(path)], copy)
            assert done.returncode == 0, git.show_last_lines(done)
            applied += 1
    assert applied

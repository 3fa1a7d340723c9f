"""Checking that the series of patches is sound: it reads, it applies, and it is as an export writes it."""

import tempfile
from pathlib import Path
from typing import List, Tuple

from . import patch_text, patches, paths, third_party
from .errors import KitError
from .patches import Patch, counted
from .third_party import Fork


def check() -> List[str]:
    """Check all patches, and return what was checked, one line a fork.

    Without its source, a fork's patches are read: each parses, is listed once and says what it has to say.
    With it, they are also applied in order without fuzz, and exported again: the same bytes must come out.
    Required patches come before those of the optional set, so this applies the series with and without it.

    :raises KitError: a patch is at fault, or a folder is in no map.
    """
    forks = third_party.forks()
    unknown = sorted(set(patches.folders()) - {fork.name for fork in forks})
    if unknown:
        raise KitError(
            f"patches/{unknown[0]} belongs to no fork.",
            where="patches/config.json",
            hint="Add it there with its submodule and base commit, or remove the folder.",
        )
    lines = []
    for fork in forks:
        found = [patches.read(path) for path in patches.series(fork.name)]
        for patch in found:
            patches.check_diff(patch)
        _check_series(fork, found)
        patches.check_order(found)
        fast = sum(patch.fast for patch in found)
        count = counted(len(found)) + (f" ({fast} of the set {patches.FAST})" if fast else "")
        both = f" without and with the set {patches.FAST}" if fast else ""
        if third_party.checked_out(fork):
            third_party.check(fork)
            _check_applied(fork, found)
            lines.append(
                f"{fork.name}: {count} read, applied to {fork.base[:12]}{both} and exported again:"
                " no difference"
            )
        else:
            lines.append(
                f"{fork.name}: {count} read; {fork.submodule} is not checked out, so none was applied"
            )
    return lines


def _check_series(fork: Fork, found: List[Patch]) -> None:
    listing = paths.PATCHES / fork.name / "series"
    wanted = "".join(f"{patch.path.name}\n" for patch in found)
    line, difference = _first_difference(_text(listing) if found else "", wanted)
    if difference:
        raise KitError(
            f"The series is not as an export writes it, a file name a line and nothing else: {difference}",
            where=f"{paths.shown(listing)}, line {line}",
            hint="Take it out: an export would.",
        )


def _text(path: Path) -> str:
    """Return a file's text, its line ends as they are."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _check_applied(fork: Fork, found: List[Patch]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tree = patches.Tree(fork.folder, Path(scratch) / "git")
        tree.read(fork.base)
        before = f"{fork.base}^{{tree}}"
        for patch in found:
            after = tree.apply(patch.path)
            again = patch_text.from_parts(
                patch.message, tree.git([*patch_text.DIFF, before, after]), patch.path.name
            )
            line, difference = _first_difference(_text(patch.path), again)
            if difference:
                raise KitError(
                    f"Exporting the patch again gives other bytes: {difference}",
                    where=f"{paths.shown(patch.path)}, line {line}",
                    hint=f"make patch-edit P={fork.name} && make patch-export P={fork.name}",
                )
            before = after


def _first_difference(one: str, other: str) -> Tuple[int, str]:
    """Return the first line that differs, counted from 1, and how; an empty text where none does."""
    if one == other:
        return 0, ""
    left, right = one.split("\n"), other.split("\n")
    for number, (a, b) in enumerate(zip(left, right), 1):
        if a != b:
            return number, f"{a!r} in the file, {b!r} exported"
    return min(len(left), len(right)), "one of the two goes on"

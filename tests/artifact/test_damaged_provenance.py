"""A provenance that lacks something, or has something else in a place, ends in no command in a traceback."""

import copy
import json
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from launch.artifact import provenance, trees
from launch.build import convert, jobs, pipeline
from launch.core.errors import KitError
from launch.model import variants
from launch.share import package, report
from launch.sources.source import Registry
from launch.verify import tree as verification

from .. import sample_trees
from ..conftest import UNSTRUCTURED, Kit

VARIANT = variants.find_variant(UNSTRUCTURED)
ONNX = f"{VARIANT.stem}.onnx"

Path_ = Tuple[Any, ...]


def places(value: Any, place: Path_ = ()) -> Iterator[Path_]:
    """Yield the way to every key, and in lists to what the first entry has."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield (*place, name)
            yield from places(entry, (*place, name))
    elif isinstance(value, list) and value:
        yield (*place, 0)
        yield from places(value[0], (*place, 0))


def damaged(content: Dict[str, Any]) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Yield the content without each key in turn, and with each value of another type."""
    for place in places(content):
        for other in (None, "x", {}):
            changed = copy.deepcopy(content)
            holder = changed
            for part in place[:-1]:
                holder = holder[part]
            if other is None:
                del holder[place[-1]]
            elif type(holder[place[-1]]) is type(other):
                continue
            else:
                holder[place[-1]] = other
            yield f"{place} = {other!r}", changed


@pytest.fixture
def job(kit: Kit, derived_source: Path) -> jobs.TreeJob:
    from launch.build import rules

    return jobs.load_tree(str(kit.launch_file), VARIANT, rules.Selection("sample"), Registry())


@pytest.fixture
def tree(kit: Kit, job: jobs.TreeJob) -> Path:
    """A tree that is current for the job, but for the bytes in it."""
    content = sample_trees.document(VARIANT)
    tree = sample_trees.write(kit.out, VARIANT, content)
    content = json.loads((tree / trees.PROVENANCE).read_text())
    key = pipeline.record_key(jobs.make_onnx_key(job))
    ir = pipeline.record_key(convert.make_ir_key(content["files"][ONNX]["sha256"], convert.DEFAULT))
    sample_trees.finish(tree, {**content, "onnx_key": key, "ir_key": ir})
    return tree


def put(tree: Path, content: Dict[str, Any]) -> None:
    """Put a provenance into a tree, and into its list of checksums."""
    from launch.artifact import sums
    from launch.core import files

    (tree / trees.PROVENANCE).write_text(json.dumps(content))
    entries = {**sums.read_sums(tree), trees.PROVENANCE: files.digest_file(tree / trees.PROVENANCE)}
    (tree / sums.NAME).write_text(sums.format_sums(entries))


def test_no_command_ends_in_a_traceback(tree: Path, job: jobs.TreeJob) -> None:
    whole = json.loads((tree / trees.PROVENANCE).read_text())
    build, key = pipeline.Build([job], tree.parent, lambda: None), jobs.make_onnx_key(job)
    current = build._current(job, key)
    assert current is not None
    assert "up to date" in pipeline.format_table([current])
    remade = 0
    for what, content in damaged(whole):
        put(tree, content)
        found = build._current(job, key)
        if found is None:
            remade += 1
        else:
            assert pipeline.format_table([found]), what
        if provenance.find_problems(content):
            to = tree.parent.parent / "to"
            with pytest.raises(KitError):
                package.make_package(
                    *package.find_place(VARIANT.name, tree.parent, to, "folder"), lambda tree: None
                )
        verification._spec(tree, VARIANT)
    assert remade > 100


def test_a_report_shows_a_tree_whose_provenance_is_damaged(tree: Path) -> None:
    whole = json.loads((tree / trees.PROVENANCE).read_text())
    for name in ("command", "files", "host", "verification", "weights"):
        put(tree, {key: value for key, value in whole.items() if key != name})
        seen = report.write_report(tree.parent, tree.parent / "report.html")
        assert f"$: '{name}' is a required property" in report.write_text(seen)

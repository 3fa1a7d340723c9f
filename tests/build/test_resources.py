import os
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest

from launch.build import resources
from launch.core import paths, place
from launch.model import spec, variants
from launch.core.errors import KitError


def estimates() -> list:
    return [resources.estimate(spec.bert_large(variant)) for variant in variants.VARIANTS.values()]


def test_estimates_grow_with_the_variant() -> None:
    for smaller, larger in zip(estimates(), estimates()[1:]):
        assert smaller.memory < larger.memory
        assert smaller.disk < larger.disk
        assert smaller.seconds < larger.seconds


def test_the_set_fast_asks_for_less() -> None:
    for variant in variants.VARIANTS.values():
        shape = spec.bert_large(variant)
        with_it, without = (
            resources.estimate(shape, fast=fast, upstreams_script=True) for fast in (True, False)
        )
        assert with_it.memory <= 0.5 * without.memory
        assert with_it.seconds < without.seconds
        assert with_it.disk <= without.disk


def test_too_little_memory_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    need = estimates()[-1]
    monkeypatch.setattr(resources, "available_memory", lambda: need.memory - 1)
    with pytest.raises(KitError, match=r"needs about .* GB of memory"):
        resources.check_memory("big", need)
    monkeypatch.setattr(resources, "available_memory", lambda: need.memory)
    resources.check_memory("big", need)
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    resources.check_memory("big", need)


def test_too_little_disk_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "free_disk", lambda folder: 10)
    with pytest.raises(KitError) as caught:
        place.check_disk("Making it", tmp_path, 11)
    assert str(tmp_path) in caught.value.where
    place.check_disk("Making it", tmp_path, 10)


def test_free_disk_of_a_folder_that_is_yet_to_be(tmp_path: Path) -> None:
    assert place.free_disk(tmp_path / "a" / "b") > 0


# --- limits of control groups ----------------------------------------------------------------------------

MB = 1_000_000
V2 = ("0::{path}\n", "31 1 0:28 {root} {top} rw,relatime shared:4 - cgroup2 cgroup rw,nsdelegate\n")
V1 = (
    "5:cpu,cpuacct:/other\n4:memory:{path}\n0::/\n",
    "30 1 0:27 / {top}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "31 1 0:28 {root} {top} rw,relatime - cgroup cgroup rw,memory\n",
)
NAMES = {V2: ("memory.max", "memory.current", "inactive_file")}
NAMES[V1] = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def version(request: pytest.FixtureRequest) -> tuple:
    return request.param


def groups(
    patch: pytest.MonkeyPatch,
    folder: Path,
    version: tuple,
    path: str,
    limits: Dict[str, object],
    root: str = "/",
) -> None:
    """Make up a process in the group ``path``, with 100 MB used and 30 MB droppable in each group."""
    top, process = folder / "the groups", folder / "process"
    process.mkdir()
    (process / "cgroup").write_text(version[0].format(path=path))
    (process / "mountinfo").write_text(version[1].format(root=root, top=str(top).replace(" ", "\\040")))
    limit, used, droppable = NAMES[version]
    for name, most in limits.items():
        group = top / name
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{most}\n")
        (group / used).write_text(f"{100 * MB}\n")
        (group / "memory.stat").write_text(f"anon 5\n{droppable} {30 * MB}\n")
    patch.setattr(resources, "_PROCESS", process)


@pytest.mark.parametrize(
    ("path", "limits", "left"),
    [
        ("/a/b", {"": "max", "a": "max", "a/b": 150 * MB}, 80 * MB),  # its own
        ("/a/b", {"": "max", "a": 140 * MB, "a/b": 150 * MB}, 70 * MB),  # that of the one around it
        ("/a/b", {"": 120 * MB, "a": "max", "a/b": "max"}, 50 * MB),  # the outermost
        ("/", {"": 90 * MB, "a": 10 * MB}, 20 * MB),  # a container's own; "a" is another process's
        ("/a", {"": "max", "a": 10 * MB}, 0),
    ],
)
def test_the_tightest_limit_around_this_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple, path: str, limits: dict, left: int
) -> None:
    groups(monkeypatch, tmp_path, version, path, limits)
    assert resources.available_memory() == left


def test_a_container_sees_its_own_group_as_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple
) -> None:
    limits = {"": 150 * MB, "inner": 140 * MB}
    groups(monkeypatch, tmp_path, version, "/box/1/inner", limits, root="/box/1")
    assert resources.available_memory() == 70 * MB


def test_without_a_limit_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple
) -> None:
    groups(monkeypatch, tmp_path, version, "/a", {"": "max", "a": "max"})
    free = resources.available_memory()
    assert free is not None
    assert free > 150 * MB


def test_a_real_limit_is_seen() -> None:
    """In a group that the kernel really limits; only where tests may make one."""
    own = next(((group, kind) for group, kind in resources._groups()), None)
    if own is None:
        pytest.skip("this process is in no group for memory")
    group, limit = own[0] / f"kit-test-{os.getpid()}", resources._CONTROLS[own[1]][0]
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no group can be made here")
    try:
        try:
            (group / limit).write_text(str(400 * MB))
        except OSError:
            pytest.skip("no group can be limited here")
        code = (
            "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
            "from launch.build import resources; print(resources.available_memory())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(group / "cgroup.procs")],
            cwd=str(paths.REPOSITORY),
            stdout=subprocess.PIPE,
            check=True,
        )
        assert 300 * MB < int(done.stdout) <= 400 * MB
    finally:
        group.rmdir()

"""The map in launch/README.md is the code's: rooms, floors, and no import upwards or in a circle."""

import ast
import fnmatch
import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

import pytest

from launch.core import paths

ROW = re.compile(r"^\| (\d) \| `([\w.]+)` \| (.+) \| (.*) \|$")


class Room(NamedTuple):
    floor: int
    may_import: Set[str]


def read_map(text: str) -> Dict[str, Room]:
    rows = [match.groups() for match in map(ROW.match, text.splitlines()) if match]
    names = [name for _, name, _, _ in rows]
    words = {"all": names, "the standard library": []}
    return {
        name: Room(int(floor), set(words.get(may, may.split(", "))) - {name}) for floor, name, _, may in rows
    }


ROOMS = read_map((paths.PACKAGE / "README.md").read_text(encoding="utf-8"))


def modules(package: Path) -> Dict[str, Path]:
    """All modules, by dotted name without the package's own."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop("", None)
    return found


def imports(name: str, path: Path, known: Dict[str, Path]) -> Iterator[str]:
    """The modules of the package that one names in an import, wherever the statement stands."""
    package = ["launch", *name.split(".")]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            named = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            base, named = "", [alias.name for alias in node.names]
        else:
            continue
        for full in named:
            for dotted in (full, base):
                if dotted.startswith("launch.") and dotted[7:] in known:
                    yield dotted[7:]
                    break


def edges(package: Path) -> List[Tuple[str, str]]:
    known = modules(package)
    return [(name, other) for name, path in known.items() for other in imports(name, path, known)]


def room(module: str) -> str:
    first = module.split(".")[0]
    return "cli" if first == "__main__" else first


def upward(found: List[Tuple[str, str]], rooms: Dict[str, Room]) -> List[str]:
    return [
        f"{name} imports {other}"
        for name, other in found
        if room(name) != room(other) and room(other) not in rooms[room(name)].may_import
    ]


def circles(found: List[Tuple[str, str]]) -> Set[str]:
    """Modules that import themselves by way of others."""
    left = {name: {other for one, other in found if one == name and other != name} for name, _ in found}
    while True:
        bottom = {name for name, others in left.items() if not others & set(left)}
        if not bottom:
            return set(left)
        left = {name: others for name, others in left.items() if name not in bottom}


def test_the_map_names_every_room_and_nothing_else() -> None:
    there = {name.split(".")[0] for name in modules(paths.PACKAGE)} - {"__main__"}
    assert set(ROOMS) == there
    assert [path.name for path in sorted(paths.PACKAGE.glob("*.py"))] == [
        "__init__.py",
        "__main__.py",
        "cli.py",
    ]


def test_a_room_may_import_lower_floors_only() -> None:
    for name, (floor, may_import) in ROOMS.items():
        assert all(ROOMS[other].floor < floor for other in may_import), name


def test_no_import_goes_up() -> None:
    assert upward(edges(paths.PACKAGE), ROOMS) == []


def test_no_import_goes_in_a_circle() -> None:
    assert circles(edges(paths.PACKAGE)) == set()


@pytest.mark.parametrize(
    "statement", ["from ..build import jobs", "from launch.build import jobs", "import launch.build.jobs"]
)
def test_an_import_that_goes_up_is_found(tmp_path: Path, statement: str) -> None:
    for name in ("core/files.py", "build/jobs.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
        (tmp_path / name).with_name("__init__.py").write_text("")
    (tmp_path / "core/files.py").write_text(f"def read():\n    {statement}\n")
    (tmp_path / "build/jobs.py").write_text("from ..core.files import read\n")
    found = edges(tmp_path)
    assert upward(found, ROOMS) == ["core.files imports build.jobs"]
    assert circles(found) == {"core.files", "build.jobs"}


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    """Pytest's own list of folders to leave out has ``build`` in it."""
    folders = {path.parent.name for path in Path(__file__).parent.rglob("test_*.py")}
    left_out = pytestconfig.getini("norecursedirs")
    assert not [name for name in folders if any(fnmatch.fnmatch(name, pattern) for pattern in left_out)]

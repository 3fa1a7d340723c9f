"""Whether two artifact trees are the same.  A and B are an ONNX file, a tree, or a folder of trees.

* ``bytes``: the ONNX files and, unless A or B is an ONNX file, the IR's files have the same bytes.
* ``weights``: opset, inputs, outputs and nodes in order are the same, and all constants, bit for bit, but for
  the ranges of activation quantizers, whose last bits depend on the processor.
* ``structure``: the same, but of constants only types and shapes count.
"""

import filecmp
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from ..artifact import trees
from ..core import child, paths
from ..core.errors import KitError, make_unknown_error
from ..core.progress import format_count
from ..model import variants
from ..model.onnx_model import Model
from ..verify import measuring
from . import describe_weights
from .onnx_diff import compare_models

LEVELS = ("bytes", "weights", "structure")
"""Senses of "same", the strictest first."""

_ENDINGS = tuple(f"-{precision}" for precision in variants.PRECISIONS)
"""Of the stem of a tree's ONNX file."""


@dataclass(frozen=True)
class Result:
    """The result for one variant, or for two ONNX files; ``text`` is one line."""

    name: str
    same: bool
    text: str


@dataclass(frozen=True)
class _Tree:
    """A tree; not ``whole`` if its ONNX file was named, and then the IR does not count."""

    onnx: Path
    whole: bool

    @property
    def name(self) -> str:
        stem, quantized = self.onnx.stem, _ENDINGS[0]
        return stem[: -len(quantized)] if stem.endswith(quantized) else stem

    def ir(self, suffix: str) -> Path:
        return self.onnx.parent / "ir" / (self.onnx.stem + suffix)


def compare_paths(a: Path, b: Path, level: str) -> Iterator[Result]:
    """Yield a result for each tree of ``a`` or ``b``, sorted by name, as soon as it is known.

    :raises KitError: as :func:`find_pairs`; or a file is no ONNX file.
    """
    for name, left, right in find_pairs(a, b, level):
        if left is None or right is None:
            yield Result(name, False, f"differs: it is in {'A' if left else 'B'} only")
            continue
        with measuring.run_beside(_compare_trees, name, left, right, level) as result:
            try:
                yield result()
            except KitError as error:
                where = error.where or f"A={paths.show_path(left.onnx)}\nB={paths.show_path(right.onnx)}"
                raise KitError(error.what, where=where, hint=error.hint) from None


def find_pairs(a: Path, b: Path, level: str) -> List[Tuple[str, Optional[_Tree], Optional[_Tree]]]:
    """Return the pairs to compare, by name; None if one side lacks it.

    :raises KitError: the level is unknown, or a path holds nothing to compare.
    """
    if level not in LEVELS:
        raise make_unknown_error("level", level, "LEVEL", LEVELS)
    left, right = _find_trees(a, "A"), _find_trees(b, "B")
    if ("" in left) != ("" in right):
        option, found = ("B", right) if "" in left else ("A", left)
        example = paths.show_path(found[min(found)].onnx.parent)
        raise KitError(
            f"{option} is a folder of trees, and the other is one tree or file.",
            where=f"A={paths.show_path(a)}\nB={paths.show_path(b)}",
            hint=f"Name one tree of the folder, e.g. {option}={example}",
        )
    names = sorted({**left, **right})
    return [(name or left[""].name, left.get(name), right.get(name)) for name in names]


def _find_trees(path: Path, option: str) -> Dict[str, _Tree]:
    """Return the trees in ``path`` by name; if it is a tree or a file, that under the empty name."""
    where = f"{option}={paths.show_path(path)}"
    if path.is_file():
        return {"": _Tree(path, whole=False)}
    if not path.is_dir():
        raise KitError("There is no such file or folder.", where=where, hint=f"Correct {option}.")
    own = sorted(file for ending in _ENDINGS for file in path.glob(f"*{ending}.onnx"))
    if len(own) > 1:
        raise KitError(
            f"The folder holds {len(own)} files {_any('*')}; a tree has one.",
            where=where,
            hint=f"Name one of them, e.g. {option}={paths.show_path(own[0])}",
        )
    if own:
        return {"": _Tree(own[0], whole=True)}
    found = {}
    for folder in path.iterdir():
        # The name of a tree of 32 bits has the ending already.
        stem = folder.name if folder.name.endswith(_ENDINGS[1]) else folder.name + _ENDINGS[0]
        if (folder / f"{stem}.onnx").is_file():
            found[folder.name] = _Tree(folder / f"{stem}.onnx", whole=True)
    if not found:
        raise KitError(
            "There is no tree in this folder.",
            where=where,
            hint=f"Set {option}= to a folder that holds {_any('<V>')} or trees, or to an ONNX file.",
        )
    return found


def _any(stem: str) -> str:
    return " or ".join(f"{stem}{ending}.onnx" for ending in _ENDINGS)


def _compare_trees(name: str, a: _Tree, b: _Tree, level: str) -> Result:
    child.report_step(f"{name}: comparing bytes")
    same_onnx = _have_same_bytes(a.onnx, b.onnx)
    other_files = ""
    if level == "bytes":
        count, other_files = _compare_files(a, b, same_onnx)
        if not other_files:
            return Result(name, True, f"same bytes ({format_count(count, 'file')})")
        if same_onnx:
            return Result(name, False, f"differs: {other_files}; the ONNX files have the same bytes")
    elif same_onnx:
        return Result(name, True, "same bytes (the ONNX file)")
    child.report_step(f"{name}: reading both ONNX files")
    found = compare_models(name, Model(a.onnx), Model(b.onnx))
    weights = [_describe_weights(tree) for tree in (a, b)]
    other_weights = f" (weights: A {weights[0]}; B {weights[1]})" if weights[0] != weights[1] else ""
    # A damaged file's names may hold anything; a result is one line.
    text = "".join(letter if letter.isprintable() else "?" for letter in found.text + other_weights)
    if other_files:
        return Result(name, False, f"differs: {other_files}; {text}")
    same = not found.structure and (level == "structure" or found.same_weights)
    return Result(name, same, text if same else f"differs: {text}")


def _describe_weights(tree: _Tree) -> str:
    """Return where the weights of a tree are from; they are random where nothing tells."""
    try:
        found = trees.read_some_provenance(tree.onnx.parent) if tree.whole else {}
        return describe_weights(found) if found["weights"]["kind"] == "trained" else "random"
    except (KeyError, TypeError):
        return "random"


def _compare_files(a: _Tree, b: _Tree, same_onnx: bool) -> Tuple[int, str]:
    """Return how many files have the same bytes, and a text on the others, empty for none."""
    count = int(same_onnx)
    faults: Dict[str, List[str]] = {"other bytes in": [] if same_onnx else [a.onnx.name]}
    for suffix in trees.IR_SUFFIXES if a.whole and b.whole else ():
        pair = a.ir(suffix), b.ir(suffix)
        there = [path.is_file() for path in pair]
        if all(there) and _have_same_bytes(*pair):
            count += 1
        elif any(there):
            fault = "other bytes in" if all(there) else f"in {'A' if there[0] else 'B'} only:"
            faults.setdefault(fault, []).append(f"ir/{pair[there.index(True)].name}")
    return count, "; ".join(f"{fault} {', '.join(names)}" for fault, names in faults.items() if names)


def _have_same_bytes(a: Path, b: Path) -> bool:
    # Published trees may be links to one file.
    return a.samefile(b) or filecmp.cmp(str(a), str(b), shallow=False)

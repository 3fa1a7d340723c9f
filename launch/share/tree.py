"""A published tree as report and package read it."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..artifact import evaluation as evaluation_file
from ..artifact import provenance as provenance_file
from ..artifact import sums
from ..artifact.trees import PROVENANCE
from ..core import hidden
from ..core.errors import KitError
from ..model import variants
from . import make_ticker
from .training import Training, find_training

COLUMNS = ("query", "key", "value", "attention output", "intermediate", "output")
"""Names of a transformer block's matrices: the columns of a heat map."""

_BY_MODULE = dict(zip((*variants.ATTENTION, *variants.FEED_FORWARD), COLUMNS))
_BLOCK = re.compile(r"bert\.encoder\.layer\.([0-9]+)\.(.+)\.weight")


@dataclass(frozen=True)
class Matrix:
    """A quantized weight matrix; ``layer`` (from 0) and ``column`` are None outside transformer blocks."""

    layer: Optional[int]
    column: Optional[str]
    parameter: str
    shape: Sequence[int]
    dense: int
    zeros: int
    ir_zeros: int

    @property
    def size(self) -> int:
        """Elements that are kept."""
        return math.prod(self.shape)

    @property
    def own(self) -> float:
        """Share of zeros in the kept matrix."""
        return self.zeros / self.size

    @property
    def overall(self) -> float:
        """Share of the dense matrix that is zero or removed."""
        return 1 - (self.size - self.zeros) / self.dense


@dataclass(frozen=True)
class Tree:
    """A tree as read, its faults a line each; ``sums`` and ``provenance`` are empty if unreadable.

    :param evaluation: the one beside it, empty if there is none; ``evaluation_fault``: why it does not count.
    :param training: of its weights, if it is known.
    """

    folder: Path
    sums: Dict[str, str]
    faults: Sequence[str]
    provenance: Dict[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    evaluation_fault: str = ""
    training: Optional[Training] = None

    @property
    def name(self) -> str:
        """The folder's name, normally the variant's."""
        return self.folder.name

    @property
    def verification(self) -> Dict[str, Any]:
        """What was measured before the tree was published."""
        return dict(self.provenance["verification"])

    def matrices(self) -> List[Matrix]:
        """Return the quantized weight matrices in the graph's order."""
        return [_matrix(entry) for entry in self.verification["matrices"]]

    @property
    def stem(self) -> str:
        """File name of ONNX file and IR, without suffix, by a valid provenance."""
        return variants.find_variant(self.provenance["variant"]).stem

    @property
    def plain(self) -> bool:
        """Whether nothing is quantized."""
        return not self.verification["onnx"]["quantizers"]["bits"]

    @property
    def kind(self) -> str:
        """``hybrid`` if structure was removed; else ``unstructured``; ``dense`` if nothing is to be zero."""
        if any(matrix.size < matrix.dense for matrix in self.matrices()):
            return "hybrid"
        return "unstructured" if self.provenance["model"]["overall_sparsity"] else "dense"

    def grid(self, share: Callable[[Matrix], float]) -> List[List[Optional[float]]]:
        """Return a share of each transformer-block matrix, by layer and :data:`COLUMNS`."""
        rows: Dict[int, Dict[str, float]] = {}
        for matrix in self.matrices():
            if matrix.layer is not None and matrix.column is not None:
                rows.setdefault(matrix.layer, {})[matrix.column] = share(matrix)
        layers = min(self.provenance["model"]["layers"], 1 + max(rows, default=-1), len(self.matrices()))
        return [[rows.get(layer, {}).get(column) for column in COLUMNS] for layer in range(layers)]

    def sizes(self) -> List[Tuple[str, Optional[int], str]]:
        """Return name, bytes (None if unknown) and sha256 of each listed file."""
        known = self.provenance.get("files", {})
        listed = self.sums or {name: entry["sha256"] for name, entry in known.items()}
        return [
            (name, known[name]["bytes"] if name in known else _measure(self.folder / name), digest)
            for name, digest in listed.items()
        ]


def _measure(path: Path) -> Optional[int]:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def _matrix(entry: Dict[str, Any]) -> Matrix:
    found = _BLOCK.fullmatch(entry["parameter"])
    if found is None or found.group(2) not in _BY_MODULE:
        return Matrix(None, None, **entry)
    return Matrix(int(found.group(1)), _BY_MODULE[found.group(2)], **entry)


def find_trees(out: Path) -> List[Path]:
    """Return the trees in a folder: the five variants' in their order, then others by name.

    :raises KitError: there is none.
    """
    names = sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
    others = [name for name in names if name[0] != "." and (out / name / PROVENANCE).is_file()]
    found = [name for name in dict.fromkeys([*variants.VARIANTS, *others]) if name in names]
    if not found:
        raise KitError(
            "There is no tree in this folder." if out.is_dir() else "There is no such folder.",
            where=f"OUT={out}",
            hint="Set OUT= to a folder that holds trees, <V>/provenance.json, or make them: make all",
        )
    return [out / name for name in found]


def read_evaluation(folder: Path, entries: Mapping[str, str]) -> Tuple[Dict[str, Any], str]:
    """Return the evaluation beside a tree (empty: none), and why it does not count (empty: it does).

    :param entries: the tree's checksums.
    """
    try:
        found = evaluation_file.read_evaluation(folder) or {}
    except KitError as error:
        return {}, hidden.remove_paths(error.what)
    stale = found and not evaluation_file.is_current(found, entries)
    return (
        found,
        "The evaluation is of other files than the tree's: it was made before them." if stale else "",
    )


def check_tree(folder: Path, trained: Sequence[Path] = ()) -> Tree:
    """Read a tree and check its files; faults are in the result and raise nothing.

    :param trained: checkpoints, or folders with checkpoints, that may be its weights.
    """
    faults: List[str] = []
    entries: Dict[str, str] = {}
    provenance: Dict[str, Any] = {}
    try:
        entries = sums.read_sums(folder)
        faults += sums.find_faults(folder, entries, make_ticker(f"{folder.name}: checking"))
    except KitError as error:
        faults.append(f"{sums.NAME}: {error.what}")
    try:
        if (folder / PROVENANCE).is_symlink():
            raise KitError("The provenance is a link.")
        provenance = provenance_file.read_provenance(folder)
        faults += provenance_file.find_disagreements(folder, entries, provenance)
    except KitError as error:
        faults += [f"{PROVENANCE}: {line}" for line in error.what.splitlines()]
    faults = list(map(hidden.remove_paths, faults))
    training = find_training(provenance["weights"], trained) if provenance else None
    return Tree(folder, entries, faults, provenance, *read_evaluation(folder, entries), training)

"""A published tree as the report shows it: its provenance, and whether its files are as listed."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ...artifact import provenance as provenance_file
from ...artifact import sums
from ...artifact.trees import PROVENANCE
from ...core import host, status
from ...core.errors import KitError
from ...model import spec, variants

SILENCE = 2.0
"""Seconds after which a long check says how far it is."""

COLUMNS = tuple(
    zip(
        ("query", "key", "value", "attention output", "intermediate", "output"),
        (*spec.ATTENTION, *spec.FEED_FORWARD),
    )
)
"""The matrices of a transformer block: what the report calls each, and its module in a layer."""

_BLOCK = re.compile(r"bert\.encoder\.layer\.([0-9]+)\.(.+)\.weight")


@dataclass(frozen=True)
class Matrix:
    """A quantized weight matrix.

    :param layer: its layer, from 0; None outside the transformer blocks.
    :param column: its place in :data:`COLUMNS`; None outside the transformer blocks.
    :param dense: elements in the dense model.
    :param zeros: elements that are zero in the ONNX file.
    :param ir_zeros: elements that are zero in the IR.
    """

    parameter: str
    layer: Optional[int]
    column: Optional[int]
    shape: Sequence[int]
    dense: int
    zeros: int
    ir_zeros: int

    @property
    def size(self) -> int:
        """Elements that are there."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def own(self) -> float:
        """Share of zeros in the matrix as it is."""
        return self.zeros / self.size

    @property
    def overall(self) -> float:
        """Share of the dense matrix that is zero or removed."""
        return 1 - (self.size - self.zeros) / self.dense


class Tree:
    """A tree that was looked at.

    :param folder: where it is; its name is the variant's.
    :param sums: what its ``SHA256SUMS`` says; empty where that cannot be read.
    :param faults: what is wrong with its files, a line each.
    :param provenance: of the form that the kit writes; None where there is none that can be read.
    """

    def __init__(
        self, folder: Path, sums: Dict[str, str], faults: List[str], provenance: Optional[Dict[str, Any]]
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self.sums = sums
        self.faults = faults
        self.provenance = provenance

    @property
    def verification(self) -> Dict[str, Any]:
        """What was measured before the tree was published."""
        assert self.provenance is not None
        return dict(self.provenance["verification"])

    def matrices(self) -> List[Matrix]:
        """Return the quantized weight matrices in the graph's order."""
        return [_matrix(entry) for entry in self.verification["matrices"]]

    @property
    def hybrid(self) -> bool:
        """Whether structure was removed."""
        return any(matrix.size < matrix.dense for matrix in self.matrices())

    def grid(self, share: Callable[[Matrix], float]) -> List[List[Optional[float]]]:
        """Return a share of each transformer-block matrix, by layer and by :data:`COLUMNS`.

        A layer beyond those that the model has is left out.
        """
        assert self.provenance is not None
        rows: Dict[int, List[Optional[float]]] = {}
        for matrix in self.matrices():
            if matrix.layer is not None and matrix.column is not None:
                rows.setdefault(matrix.layer, [None] * len(COLUMNS))[matrix.column] = share(matrix)
        layers = min(self.provenance["model"]["layers"], 1 + max(rows, default=-1), len(self.matrices()))
        return [rows.get(layer, [None] * len(COLUMNS)) for layer in range(layers)]

    def sizes(self) -> List[Tuple[str, Optional[int], str]]:
        """Return name, bytes and sha256 of each listed file; None for bytes that nobody knows."""
        known = self.provenance["files"] if self.provenance else {}
        listed = self.sums or {name: entry["sha256"] for name, entry in known.items()}
        return [(name, self._bytes(name, known), digest) for name, digest in listed.items()]

    def _bytes(self, name: str, known: Dict[str, Any]) -> Optional[int]:
        if name in known:
            return int(known[name]["bytes"])
        try:
            return (self.folder / name).lstat().st_size
        except OSError:
            return None


def _matrix(entry: Dict[str, Any]) -> Matrix:
    found = _BLOCK.fullmatch(entry["parameter"])
    modules = [module for _, module in COLUMNS]
    block = found is not None and found.group(2) in modules
    return Matrix(
        parameter=entry["parameter"],
        layer=int(found.group(1)) if found and block else None,
        column=modules.index(found.group(2)) if found and block else None,
        shape=entry["shape"],
        dense=entry["dense"],
        zeros=entry["zeros"],
        ir_zeros=entry["ir_zeros"],
    )


def find(out: Path) -> List[Path]:
    """Return the trees in a folder: those of the five variants in their order, then others by name.

    :raises KitError: there is none.
    """
    try:
        names = sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
    except OSError as error:
        raise KitError(
            f"The folder cannot be read: {error.strerror}.",
            where=f"OUT={out}",
            hint="Make it readable, or set OUT= to another folder.",
        ) from None
    five = [name for name in variants.VARIANTS if name in names]
    others = [
        name
        for name in names
        if name not in five and not name.startswith(".") and (out / name / PROVENANCE).is_file()
    ]
    if not five and not others:
        raise KitError(
            "There is no tree in this folder." if out.is_dir() else "There is no such folder.",
            where=f"OUT={out}",
            hint="Set OUT= to a folder that holds trees, <V>/provenance.json, or make them: make all",
        )
    return [out / name for name in (*five, *others)]


def look(folder: Path) -> Tree:
    """Read a tree and check its files; what is wrong is in the result, and nothing is raised for it.

    A check of more than :data:`SILENCE` seconds says how far it is.
    """
    faults: List[str] = []
    entries: Dict[str, str] = {}
    try:
        entries = sums.read(folder)
        faults += sums.faults(folder, entries, ticker(f"{folder.name}: checking"))
    except KitError as error:
        faults.append(f"{sums.NAME}: {error.what}")
    provenance = None
    try:
        if (folder / PROVENANCE).is_symlink():
            raise KitError("The provenance is a link.")
        provenance = provenance_file.read(folder)
    except KitError as error:
        faults += [f"{PROVENANCE}: {line}" for line in error.what.splitlines()]
    if provenance is not None:
        faults += provenance_file.disagreements(folder, entries, provenance)
    return Tree(folder, entries, list(map(host.placeless, faults)), provenance)


def ticker(what: str) -> Callable[[str], None]:
    """Return a function that takes each thing's name before it is worked on, and says it now and then."""
    said = time.monotonic()

    def tick(name: str) -> None:
        nonlocal said
        if time.monotonic() - said > SILENCE:
            said = time.monotonic()
            status.step(f"{what} {name}")

    return tick

"""The report on the share of zeros in each weight matrix of an ONNX file: upstream's and parameter names."""

import csv
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Tuple

from ..core import child
from ..core.errors import KitError
from .onnx_model import Model
from .variants import list_report_paths

COLUMNS = ("layer_id", "layer", "shape", "nparam", "nnz", "sparsity")


@dataclass(frozen=True)
class Row:
    """One weight matrix, the parameter ``layer``.

    :param layer_id: name of its ONNX ``Constant`` node (``Constant_52``), upstream's key; the constant's name
        where there is no such node, as in a file without quantizers.
    :param nnz: elements that are not zero (a negative zero is zero).
    """

    layer_id: str
    layer: str
    shape: Tuple[int, ...]
    nparam: int
    nnz: int

    @property
    def sparsity(self) -> float:
        """Share of elements that are zero."""
        return 1 - self.nnz / self.nparam


def measure_rows(onnx_path: Path) -> Iterator[Row]:
    """Yield a row for each matrix of :attr:`.Model.matrices`, in the graph's order.

    :raises KitError: the file is damaged.
    """
    import numpy

    model = Model(onnx_path)
    for name, reader in model.matrices.items():
        constant, values = model.graph.producer.get(name), model.matrix(name)
        yield Row(
            layer_id=name if constant is None else constant.name,
            layer=model.graph.layer_name(reader),
            shape=values.shape,
            nparam=values.size,
            # Compared first: numpy counts what is true many times faster than what is a number.
            nnz=int(numpy.count_nonzero(values != 0)),
        )


def digest_places(zero: Any) -> str:
    """Return a digest of where a matrix is zero, of its rows and columns' array of bool."""
    import numpy

    return hashlib.sha256(numpy.packbits(zero).tobytes()).hexdigest()


def write_report(onnx_path: Path) -> None:
    """Write the report beside ``onnx_path``, in the table format of pandas, as upstream does.

    :raises KitError: the file is damaged, or the report cannot be written.
    """
    from tabulate import tabulate

    table = [
        (row.layer_id, row.layer, list(row.shape), row.nparam, row.nnz, row.sparsity)
        for row in measure_rows(onnx_path)
    ]
    csv_path, markdown_path = list_report_paths(onnx_path)
    try:
        with csv_path.open("w", newline="", encoding="utf-8") as handle:
            lines = csv.writer(handle, lineterminator="\n")
            lines.writerow(["", *COLUMNS])
            lines.writerows([number, *cells] for number, cells in enumerate(table))
        markdown = tabulate(table, COLUMNS, tablefmt="pipe", showindex=True)
        markdown_path.write_text(markdown + "\n", encoding="utf-8")
    except OSError as error:
        raise KitError(
            f"The sparsity report cannot be written: {error.strerror}.",
            where=str(csv_path.parent),
            hint="Make the folder writable and free disk space.",
        ) from None


def read_report(csv_path: Path) -> List[Row]:
    """Return the rows of a report that :func:`write_report` wrote."""
    with csv_path.open(newline="", encoding="utf-8") as handle:
        return [
            Row(
                layer_id=row["layer_id"],
                layer=row["layer"],
                shape=tuple(int(size) for size in row["shape"].strip("[]").split(",") if size.strip()),
                nparam=int(row["nparam"]),
                nnz=int(row["nnz"]),
            )
            for row in csv.DictReader(handle)
        ]


def _main(arguments: List[str]) -> int:
    child.report_step("counting zeros")
    for name in arguments:
        write_report(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(child.run_body(_main, sys.argv[1:]))

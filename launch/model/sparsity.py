"""What share of each weight matrix in an exported ONNX file is zero.

Upstream's report names a matrix by the ONNX node that holds it (``Constant_52``).  Here the layer's name
stands beside it, found by following the graph to the bias that is added to the matrix's product: biases keep
their parameter names in the file.
"""

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from ..core import status
from ..core.errors import KitError
from . import onnx_outline

COLUMNS = ("layer_id", "layer", "shape", "nparam", "nnz", "sparsity")
BLOCK_PREFIX = "bert.encoder.layer."
MODULE_PREFIX = "nncf_module."


@dataclass(frozen=True)
class Row:
    """One quantized weight matrix.

    :param layer_id: name of the ONNX ``Constant`` node, upstream's key.
    :param layer: the parameter's name in the model.
    :param shape: rows and columns.
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


class Graph:
    """Producers and consumers of every tensor in an ONNX graph."""

    def __init__(self, graph: Any) -> None:
        self.inputs = [value.name for value in graph.input]
        self.initializers = {tensor.name for tensor in graph.initializer}
        self.producer: Dict[str, Any] = {name: node for node in graph.node for name in node.output}
        self.consumers: Dict[str, List[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def layer_name(self, quantizer: Any) -> str:
        """Return the name of the parameter that ``quantizer`` quantizes; empty where the graph is unknown."""
        for node in self.consumers.get(quantizer.output[0], []):
            if node.op_type == "Gather":
                return self._embedding(node.input[1])
            product = node
            if node.op_type == "Transpose":
                product = next(iter(self.consumers.get(node.output[0], [])), None)
            if product is None or product.op_type not in ("MatMul", "Gemm"):
                continue
            for follower in self.consumers.get(product.output[0], []):
                for name in follower.input:
                    if name in self.initializers and name.endswith(".bias"):
                        return str(name)[len(MODULE_PREFIX) : -len("bias")] + "weight"
        return ""

    def _embedding(self, index: str) -> str:
        # Inputs in the order of BertModel.forward: input_ids, attention_mask, token_type_ids.  The indices
        # of positions are no input but a slice of a constant.
        table = {0: "word", 2: "token_type"}
        kind = table.get(self.inputs.index(index), "") if index in self.inputs else "position"
        return f"bert.embeddings.{kind}_embeddings.weight" if kind else ""


def rows(onnx_path: Path) -> Iterator[Row]:
    """Yield a row for each constant that the model in a file quantizes, in the graph's order.

    :raises KitError: the file is damaged.
    """
    model = onnx_outline.read(onnx_path)
    graph = Graph(model.graph)
    for node in model.graph.node:
        if node.op_type != "FakeQuantize":
            continue
        constant = graph.producer.get(node.input[0])
        if constant is None or constant.op_type != "Constant":
            continue
        tensor = constant.attribute[0].t
        yield Row(
            layer_id=constant.name,
            layer=graph.layer_name(node),
            shape=tuple(tensor.dims),
            nparam=math.prod(tensor.dims),
            nnz=onnx_outline.nonzero(onnx_path, tensor),
        )


def report_paths(onnx_path: Path) -> Tuple[Path, Path]:
    """Return the report's two files, CSV and Markdown, named as upstream names them."""
    stem = onnx_path.with_suffix("").name + "-onnx_sparsity"
    return onnx_path.with_name(stem + ".csv"), onnx_path.with_name(stem + ".md")


def write_report(onnx_path: Path) -> None:
    """Write the report of ``onnx_path`` beside it, in the form that pandas gives a table, as upstream's is.

    :raises KitError: the file is damaged, or the report cannot be written.
    """
    from tabulate import tabulate

    table = [
        (row.layer_id, row.layer, list(row.shape), row.nparam, row.nnz, row.sparsity)
        for row in rows(onnx_path)
    ]
    csv_path, markdown_path = report_paths(onnx_path)
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


def block_sparsity(report: List[Row], dense_weights: int) -> float:
    """Return the share of the dense model's transformer-block weights that are zero or removed.

    ``1 − nnz / dense``: ``nnz`` counts what is left in the block matrices of the file, ``dense`` what the
    dense model has there (:func:`.variants.dense_block_weights`), so that removed structure counts as zero.

    :param dense_weights: the denominator; 301,989,888 for BERT-large.
    """
    left = sum(row.nnz for row in report if row.layer.startswith(BLOCK_PREFIX))
    return 1 - left / dense_weights


def _main(arguments: List[str]) -> int:
    status.step("counting zeros")
    for name in arguments:
        write_report(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(status.run(_main, sys.argv[1:]))

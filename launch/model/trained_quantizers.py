"""Trained weights: where an ONNX file quantizes, and how finely, so that the model keeps its answers.

NNCF quantizes the inputs of all that can be computed in 8 bits.  Random weights bear that; a trained BERT has
a few dimensions in the sums of residual branches that are a hundred times as large as the others, so that one
range leaves the others no levels (Bondarenko et al. 2021, "Understanding and Overcoming the Challenges of
Efficient Transformer Quantization").  tests/README.md has what each rule here is worth.
"""

from pathlib import Path
from typing import Any

from ..core import files
from .onnx_model import QUANTIZER, Graph

_PASSES_ON = ("Reshape", "Transpose")
"""What is between a quantizer and the matrix product that reads it."""


def refine_quantizers(path: Path) -> None:
    """Change the quantizers of an ONNX file in place.

    * Only what matrix products read is quantized: sums, norms and softmax get what was computed, in 32 bits.
      A product's result is in 32 bits, too, so that this costs no time.
    * The range of a table of embeddings ends with its largest value.  NNCF's is twice as wide, lest sums of
      products overflow 16 bits; a table is in no product.
    """
    import onnx

    proto = onnx.load(str(path))
    graph = Graph(proto.graph)
    for node in [one for one in proto.graph.node if one.op_type == QUANTIZER]:
        users = graph.consumers[node.output[0]]
        if [user.op_type for user in users] == ["Gather"]:
            _tighten_range(graph, node)
            continue
        others = [user for user in users if not _reaches_product(graph, user)]
        for user in others:
            user.input[:] = [node.input[0] if name == node.output[0] else name for name in user.input]
        if len(others) == len(users):
            proto.graph.node.remove(node)
    used = {name for node in proto.graph.node for name in node.input}
    for node in [one for one in proto.graph.node if one.op_type == "Constant" and one.output[0] not in used]:
        proto.graph.node.remove(node)
    with files.replace_file(path) as part:
        onnx.save(proto, str(part))


def _reaches_product(graph: Graph, node: Any) -> bool:
    """Return whether a matrix product reads what a node gives, as it is or in another shape."""
    if node.op_type in _PASSES_ON:
        return any(_reaches_product(graph, user) for user in graph.consumers.get(node.output[0], []))
    return bool(node.op_type == "MatMul")


def _tighten_range(graph: Graph, quantizer: Any) -> None:
    """End a quantizer's range with the largest value of its constant, around zero as NNCF has it."""
    import numpy as np
    from onnx import numpy_helper

    table, low, high = (graph.producer[name].attribute[0].t for name in quantizer.input[:3])
    levels = next(one.i for one in quantizer.attribute if one.name == "levels")
    largest = abs(numpy_helper.to_array(table)).max() or 1
    for end, value in ((low, -largest * levels / (levels - 2)), (high, largest)):
        end.CopyFrom(numpy_helper.from_array(np.array([value], np.float32), end.name))

"""Trained weights: the sums of residual branches are computed in 32 bits.

A trained BERT has a few dimensions in these sums that are a hundred times as large as the others, so that
one range in 8 bits leaves the others no levels (Bondarenko et al. 2021, "Understanding and Overcoming the
Challenges of Efficient Transformer Quantization").  tests/README.md has what that costs.
"""

from pathlib import Path
from typing import Any, List

from ..core import files
from .onnx_model import QUANTIZER, Graph


def remove_residual_quantizers(path: Path) -> None:
    """Take the quantizers around each block's two sums out of an ONNX file.

    They are that of a dense layer's output, which is added, and that of the sum, which the layer norm reads.
    The residual input stays quantized: its quantizer is that of the next matrices' input.
    """
    import onnx

    proto = onnx.load(str(path))
    graph = Graph(proto.graph)
    gone: List[Any] = []
    for node in proto.graph.node:
        users = graph.consumers.get(node.output[0], [])
        if node.op_type != QUANTIZER or [user.op_type for user in users] != ["Add"]:
            continue
        if not _is_dense(graph, node.input[0]):  # a sum of embeddings
            continue
        gone.append(node)
        gone += [user for user in graph.consumers[users[0].output[0]] if user.op_type == QUANTIZER]
    for node in gone:
        for user in graph.consumers[node.output[0]]:
            user.input[:] = [node.input[0] if name == node.output[0] else name for name in user.input]
        proto.graph.node.remove(node)
    used = {name for node in proto.graph.node for name in node.input}
    for node in [one for one in proto.graph.node if one.op_type == "Constant" and one.output[0] not in used]:
        proto.graph.node.remove(node)
    with files.replace_file(path) as part:
        onnx.save(proto, str(part))


def _is_dense(graph: Graph, name: str) -> bool:
    """Return whether a tensor is a matrix product with a bias added."""
    producer = graph.producer.get(name)
    if producer is None or producer.op_type != "Add":
        return False
    inputs = [graph.producer[one].op_type for one in producer.input if one in graph.producer]
    return "MatMul" in inputs and any(one in graph.initializers for one in producer.input)

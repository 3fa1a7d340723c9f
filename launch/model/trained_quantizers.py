"""Trained weights: where an ONNX file quantizes, and how finely, so that the model keeps its answers.

NNCF quantizes the inputs of all that can be computed in 8 bits.  Random weights bear that; a trained BERT has
a few dimensions in the sums of residual branches that are a hundred times as large as the others, so that one
range leaves the others no levels (Bondarenko et al. 2021, "Understanding and Overcoming the Challenges of
Efficient Transformer Quantization").  tests/README.md has what each rule here is worth.
"""

from pathlib import Path
from typing import Any, List

from ..core import files
from .onnx_model import QUANTIZER, Graph, read_node_constant

_PASSES_ON = ("Reshape", "Transpose", QUANTIZER)
"""What is between an activation, or its quantizer, and the matrix product that reads it."""


def refine_quantizers(path: Path) -> None:
    """Change the quantizers of an ONNX file in place.

    * Only what matrix products read is quantized: sums, norms and softmax get what was computed, in 32 bits.
      A product's result is in 32 bits, too, so that this costs no time.
    * Attention's probabilities and the values that they weight are in 32 bits.  In 8 bits a probability is a
      multiple of 1/255, and most of 384 tokens have less than that.  Where the processor has instructions for
      8 bits this takes 2 to 6 % more time.
    * What is multiplied with another activation (query and key) has a range around zero: OpenVINO has
      products in 8 bits of two activations only where 0 is the level of 0.
    * Each row of a table of embeddings has a range of its own, which ends with the row's largest value: the
      first position's values are ten times as large as the others'.  NNCF's one range is twice as wide as the
      largest of all, lest sums of products overflow 16 bits; a table is in no product.
    """
    import numpy as np
    import onnx
    from onnx.numpy_helper import to_array

    proto = onnx.load(str(path))
    graph = Graph(proto.graph)
    quantizers = [node for node in proto.graph.node if node.op_type == QUANTIZER]
    of_weights = {
        product.output[0]
        for node in quantizers
        if graph.producer[node.input[0]].op_type == "Constant"
        for user in graph.consumers[node.output[0]]
        for product in _find_products(graph, user)
    }
    of_probabilities = {
        product.output[0]
        for node in proto.graph.node
        if node.op_type == "Softmax"
        for user in graph.consumers[node.output[0]]
        for product in _find_products(graph, user)
    }
    for node in quantizers:
        users = graph.consumers[node.output[0]]
        if [user.op_type for user in users] == ["Gather"]:
            largest = abs(to_array(_find_constant(graph, node.input[0]))).max(1, keepdims=True)
            _center_range(graph, node, np.where(largest > 0, largest, 1))
            continue
        products: List[Any] = []
        for user in users:
            found = [one for one in _find_products(graph, user) if one.output[0] not in of_probabilities]
            products += found
            if not found:
                user.input[:] = [node.input[0] if name == node.output[0] else name for name in user.input]
        if not products:
            proto.graph.node.remove(node)
        elif any(product.output[0] not in of_weights for product in products):
            low, high = (to_array(_find_constant(graph, name)) for name in node.input[1:3])
            if low < 0:
                _center_range(graph, node, np.maximum(-low, high))
    used = {name for node in proto.graph.node for name in node.input}
    for node in [one for one in proto.graph.node if one.op_type == "Constant" and one.output[0] not in used]:
        proto.graph.node.remove(node)
    with files.replace_file(path) as part:
        onnx.save(proto, str(part))


def _find_products(graph: Graph, node: Any) -> List[Any]:
    """Return the matrix products that read what a node gives, as it is or in another shape."""
    if node.op_type in _PASSES_ON:
        users = graph.consumers.get(node.output[0], [])
        return [product for user in users for product in _find_products(graph, user)]
    return [node] if node.op_type == "MatMul" else []


def _find_constant(graph: Graph, name: str) -> Any:
    return read_node_constant(graph.producer[name])


def _center_range(graph: Graph, quantizer: Any, largest: Any) -> None:
    """Give a quantizer the range around zero, as NNCF has it, that ends with ``largest``, one or by row."""
    from onnx import numpy_helper

    levels = next(one.i for one in quantizer.attribute if one.name == "levels")
    for name, value in zip(quantizer.input[1:3], (-largest * levels / (levels - 2), largest)):
        end = _find_constant(graph, name)
        end.CopyFrom(numpy_helper.from_array(value.astype("f4"), end.name))

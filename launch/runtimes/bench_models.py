"""The models that are timed beside a tree's own: without zeros, of other input shapes, and one product."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Sequence

from .qdq import OPSET

PRODUCTS = ((384, 1024, 4096), (1024, 2048, 2048))
"""Rows, inner size and columns of the products whose fastest shows a runtime's int8 peak: dense BERT-large's
widest on 384 tokens, and a larger one."""

PRODUCT_INPUT = "input"

_ALIGNED = 64  # bytes between two constants of a .bin


def fill_zeros(xml: Path, folder: Path) -> Path:
    """Write an IR to ``folder`` whose int8 zeros are random nonzero levels; return its XML file.

    A constant that several layers share is written once for each: the filled matrices are all different.
    """
    import numpy

    generator = numpy.random.RandomState(0)
    content, target = xml.with_suffix(".bin").read_bytes(), folder / xml.name
    tree = ElementTree.parse(str(xml))
    folder.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".bin").open("wb") as handle:
        for data in tree.iterfind("layers/layer[@type='Const']/data"):
            start, size = int(data.get("offset") or 0), int(data.get("size") or 0)
            values = numpy.frombuffer(content[start : start + size], "i1")
            if data.get("element_type") == "i8":
                levels = generator.randint(1, 128, values.size) * generator.choice((-1, 1), values.size)
                values = numpy.where(values == 0, levels.astype("i1"), values)
            handle.write(b"\0" * (-handle.tell() % _ALIGNED))
            data.set("offset", str(handle.tell()))
            handle.write(values.tobytes())
    tree.write(str(target))
    return target


def reshape_onnx(source: Path, target: Path, shape: Sequence[int]) -> Path:
    """Write an ONNX file whose inputs and outputs have another ``shape``; return ``target``.

    The kit's graphs compute the shapes between from that of the inputs.
    """
    import onnx

    model = onnx.load(str(source))
    inner = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in inner:
            for dim, size in zip(value.type.tensor_type.shape.dim, shape):
                dim.dim_value = size
    del model.graph.value_info[:]
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
    return target


def write_product(target: Path, shape: Sequence[int]) -> Path:
    """Write a model of one quantized product, in the form that each runtime reads; return ``target``.

    :param shape: rows, inner size and columns.
    """
    import numpy
    from onnx import TensorProto, helper, numpy_helper, save

    rows, inner, columns = shape
    generator = numpy.random.RandomState(0)
    constants = {
        "weights": generator.randint(-127, 128, (inner, columns)).astype("i1"),
        "scales": ((1 + generator.rand(columns)) / 128).astype("f4"),
        "zeros": numpy.zeros(columns, "i1"),
        "step": numpy.float32(1 / 128),
        "zero": numpy.uint8(128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", [PRODUCT_INPUT, "step", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "step", "zero"], ["left"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["right"], axis=1),
        helper.make_node("MatMul", ["left", "right"], ["product"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, size])]
        for name, size in ((PRODUCT_INPUT, inner), ("product", columns))
    ]
    initializers = [numpy_helper.from_array(numpy.asarray(one), name) for name, one in constants.items()]
    graph = helper.make_graph(nodes, "product", *ends, initializers)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=7), str(target))
    return target

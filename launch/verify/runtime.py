"""Networks in OpenVINO's runtime.

The runtime is slow with 32-bit weights and keeps them three times.  So an ONNX file's matrices are left out,
and the IR's int8 constants, which :class:`launch.verify.ir_weights.Weights` compares with them, are put in.
"""

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..core import paths
from ..core.errors import KitError
from ..model.onnx_model import QUANTIZER, Model, read_node_constant

NO_ROUNDING_LEVELS = 2**16
"""Levels at which a quantizer's rounding is negligible; its range still clips."""


class Network:
    """A model in the runtime: the IR at ``path``, or the ONNX file's ``content``.

    :param nodes: first output by ONNX node; Model Optimizer 2021.4 names operations by node or by output.
    :raises KitError: the runtime does not take the file.
    """

    def __init__(self, path: Path, nodes: Mapping[str, str], content: Optional[bytes] = None) -> None:
        from openvino.runtime import Core

        self.path = path
        self._nodes = nodes
        self._core = Core()
        try:
            self.model = self._core.read_model(str(path) if content is None else content)
        except RuntimeError as error:
            raise self._refused("read", error) from None

    def quantizers(self) -> Iterator[Any]:
        """Yield the activation quantizers."""
        for operation in self.model.get_ordered_ops():
            if operation.get_type_name() == QUANTIZER and not is_constant(operation.input_value(0)):
                yield operation

    def constants(self, kind: str) -> Iterator[Any]:
        """Yield the constants of an element type: ``f32``, ``i8``."""
        for operation in self.model.get_ordered_ops():
            is_kind = operation.get_output_element_type(0).get_type_name() == kind
            if operation.get_type_name() == "Constant" and is_kind:
                yield operation

    def fill_inputs(self, operations: Mapping[str, Any]) -> None:
        """Replace inputs of the model by operations, by input name."""
        from openvino.runtime import Model as Graph

        kept = []
        for parameter in self.model.get_parameters():
            filling = operations.get(parameter.get_friendly_name())
            if filling is None:
                kept.append(parameter)
                continue
            for user in list(parameter.output(0).get_target_inputs()):
                user.get_node().set_argument(user.get_index(), filling.output(0))
        self.model = Graph(self.model.get_results(), kept, self.model.get_friendly_name())

    def tensor_name(self, operation: Any) -> str:
        """Return the ONNX graph's name for the first output of an operation."""
        # What Model Optimizer makes of a constant has the constant's name and a suffix after a slash.
        name = str(operation.get_friendly_name()).split("/")[0]
        return self._nodes.get(name, name)

    def disable_rounding(self) -> None:
        """Set the activation quantizers to :data:`NO_ROUNDING_LEVELS`."""
        for quantizer in self.quantizers():
            quantizer.set_attribute("levels", NO_ROUNDING_LEVELS)

    def run(
        self, feeds: Sequence[Mapping[str, Any]], extra: Optional[Mapping[str, Any]] = None
    ) -> List[Dict[str, Any]]:
        """Run on the CPU; return the outputs, and those of ``extra``, by name for each of ``feeds``.

        :param feeds: int64 arrays by input name.
        :raises KitError: the runtime does not run it, or a feed lacks an input.
        """
        from openvino.runtime import Model as Graph
        from openvino.runtime import opset8

        model, results = self.model, list(self.model.get_results())
        parameters = list(model.get_parameters())
        narrow = [one.get_element_type().get_type_name() == "i32" for one in parameters]
        kinds = ["int32" if one else "int64" for one in narrow]
        names = [self.tensor_name(result.input_value(0).get_node()) for result in results]
        try:
            if extra:
                names += list(extra)
                results += [opset8.result(value) for value in extra.values()]
                model = Graph(results, parameters, "with more outputs")
            compiled = self._core.compile_model(model, "CPU")
            found = []
            for feed in feeds:
                values = [feed[one.get_friendly_name()].astype(kind) for one, kind in zip(parameters, kinds)]
                # One for each feed, and not `infer`, which copies all outputs.
                request = compiled.create_infer_request()
                request.start_async(dict(enumerate(values)))
                request.wait()
                found.append({name: request.get_output_tensor(at).data for at, name in enumerate(names)})
        except RuntimeError as error:
            raise self._refused("run", error) from None
        except KeyError as error:
            raise KitError(f"The model has an input {error}.", where=paths.show_path(self.path)) from None
        return found

    def _refused(self, what: str, error: Exception) -> KitError:
        lines = str(error).strip().splitlines() or [""]
        return KitError(
            f"OpenVINO cannot {what} the file: {lines[-1].strip()}",
            where=paths.show_path(self.path),
            hint="Make the tree again, or copy it again from where it came.",
        )


def is_constant(value: Any) -> bool:
    """Return whether an output of a graph is a constant's."""
    return bool(value.get_node().get_type_name() == "Constant")


def read_constant(value: Any) -> Any:
    """Return a constant's array, a view of its memory."""
    import numpy

    return numpy.asarray(memoryview(value.get_node()))


def find_consumer(operation: Any) -> Any:
    """Return the only operation that uses the first output of ``operation``; None if there is not one."""
    users = list(operation.output(0).get_target_inputs())
    return users[0].get_node() if len(users) == 1 else None


class Quantized(NamedTuple):
    """A weight matrix of an ONNX file (float32, a view of the file) and its quantizer.

    :param ends: of the ranges: low, high, output low, output high.
    """

    values: Any
    ends: Tuple[Any, ...]
    levels: int
    transposed: bool


def find_quantized(model: Model, names: Iterable[str]) -> Dict[str, Quantized]:
    """Return, by name, the named constants that are float32 matrices with constant ranges of a fitting shape.

    :raises KitError: a constant has not the values that its type and shape need.
    """
    import numpy

    transposed = {node.input[0] for node in model.nodes if node.op_type == "Transpose"}
    found = {}
    for name in names:
        quantizer = model.matrices[name]
        given = [model.array(model.tensors[one]) for one in quantizer.input if one in model.tensors]
        levels = next((one.i for one in quantizer.attribute if one.name == "levels"), 0)
        if len(given) < len(quantizer.input) or any(one.dtype != numpy.float32 for one in given):
            continue
        values, *ends = given
        try:
            fits = numpy.broadcast(*ends, numpy.empty(values.shape, "b")).shape == values.shape
        except ValueError:
            continue
        if levels >= 2 and values.ndim == 2 and fits:
            found[name] = Quantized(values, tuple(ends), levels, quantizer.output[0] in transposed)
    return found


def read_network(model: Model, nodes: Mapping[str, str], operations: Mapping[str, Any]) -> Network:
    """Return an ONNX file in the runtime, quantized constants replaced by ``operations``; uses up ``model``.

    :raises KitError: the runtime does not take the file.
    """
    from onnx import TensorProto, helper

    graph = model.proto.graph
    for name, tensor in model.constants:
        if name not in operations:
            model.restore(tensor)
    kept, filled = [], {}
    for node in graph.node:
        if node.op_type == QUANTIZER and node.input[0] in operations:
            output, shape = node.output[0], list(model.tensors[node.input[0]].dims)
            filled[output] = operations[node.input[0]]
            graph.input.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        elif read_node_constant(node) is None or node.output[0] not in operations:
            kept.append(node)
    # Made anew: protobuf moves what is kept up one by one where nodes are taken out.
    del graph.node[:]
    graph.node.extend(kept)
    found = Network(model.path, nodes, model.proto.SerializeToString())
    found.fill_inputs(filled)
    return found

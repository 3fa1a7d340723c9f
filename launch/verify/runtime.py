"""OpenVINO's runtime as the checks use it: files read into it, and the same run on the same inputs."""

from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ..core import paths
from ..core.errors import KitError

NO_ROUNDING_LEVELS = 2**16
"""Levels of a quantizer whose rounding is as good as none.

Rounding to 8 bits makes a deep network chaotic: two ways to compute the same sum give outputs that are some
percent apart after 24 layers.  With 16 bits the ranges still clip and the outputs agree.
"""


class Network:
    """A model in the runtime.

    :param path: an ONNX file, or the ``.xml`` of an IR.
    :param nodes: name of the first output by name of the node, of the ONNX graph: Model Optimizer 2021.4
        names what is left of a node by the node, everything else by the output.
    :param content: what is read in the file's place.
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
        """Yield the FakeQuantize operations."""
        for operation in self.model.get_ordered_ops():
            if operation.get_type_name() == "FakeQuantize":
                yield operation

    def constants(self, kind: str) -> Iterator[Any]:
        """Yield the constants of an element type, as ``f32`` or ``i8``."""
        for operation in self.model.get_ordered_ops():
            is_kind = operation.get_output_element_type(0).get_type_name() == kind
            if operation.get_type_name() == "Constant" and is_kind:
                yield operation

    def fill_in(self, constants: Mapping[str, Any]) -> None:
        """Put operations in the place of inputs of the model.

        :param constants: the operations by the input's name.
        """
        from openvino.runtime import Model

        kept = []
        for parameter in self.model.get_parameters():
            if parameter.get_friendly_name() in constants:
                replace(parameter, constants[parameter.get_friendly_name()])
            else:
                kept.append(parameter)
        self.model = Model(self.model.get_results(), kept, self.model.get_friendly_name())

    def tensor_name(self, operation: Any) -> str:
        """Return the name that the ONNX graph gives the first output of an operation.

        What Model Optimizer makes of a constant has the constant's name and a suffix after a slash.
        """
        name = str(operation.get_friendly_name()).split("/")[0]
        return self._nodes.get(name, name)

    def disable_rounding(self) -> None:
        """Set the quantizers of activations to :data:`NO_ROUNDING_LEVELS`; those of constants stay."""
        for quantizer in self.quantizers():
            if not is_constant(quantizer.input_value(0)):
                quantizer.set_attribute("levels", NO_ROUNDING_LEVELS)

    def run(
        self, feeds: Sequence[Mapping[str, Any]], extra: Optional[Mapping[str, Any]] = None
    ) -> List[Dict[str, Any]]:
        """Run the model on the CPU and return the outputs by name for each of ``feeds``.

        :param feeds: int64 arrays by the input's name.
        :param extra: more outputs by name, of operations of the model.
        :raises KitError: the runtime does not run it, or the inputs are others.
        """
        from openvino.runtime import Model, opset8

        results = list(self.model.get_results())
        names = [self.tensor_name(result.input_value(0).get_node()) for result in results]
        parameters = list(self.model.get_parameters())
        try:
            model = self.model
            if extra:
                names += list(extra)
                results += [opset8.result(value) for value in extra.values()]
                model = Model(results, parameters, "with more outputs")
            compiled = self._core.compile_model(model, "CPU")
            found = []
            for feed in feeds:
                values = [
                    feed[parameter.get_friendly_name()].astype(_dtype(parameter)) for parameter in parameters
                ]
                # One for each feed, and not `infer`, which copies all outputs.
                request = compiled.create_infer_request()
                request.start_async(dict(enumerate(values)))
                request.wait()
                found.append({name: request.get_output_tensor(at).data for at, name in enumerate(names)})
        except RuntimeError as error:
            raise self._refused("run", error) from None
        except KeyError as error:
            raise KitError(f"The model has an input {error}.", where=paths.shown(self.path)) from None
        return found

    def _refused(self, what: str, error: Exception) -> KitError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return KitError(
            f"OpenVINO cannot {what} the file: {lines[-1] if lines else error}",
            where=paths.shown(self.path),
            hint="Make the tree again, or copy it again from where it came.",
        )


def is_constant(value: Any) -> bool:
    """Return whether an output of the runtime's graph is that of a constant."""
    return bool(value.get_node().get_type_name() == "Constant")


def constant(value: Any) -> Any:
    """Return the array that a constant's output holds, a view of its memory."""
    import numpy

    return numpy.asarray(memoryview(value.get_node()))


def replace(old: Any, new: Any) -> None:
    """Put the first output of an operation in the place of another's."""
    for user in list(old.output(0).get_target_inputs()):
        user.get_node().set_argument(user.get_index(), new.output(0))


def consumer(operation: Any) -> Any:
    """Return the only operation that uses the first output of ``operation``; None where there are others."""
    users = list(operation.output(0).get_target_inputs())
    return users[0].get_node() if len(users) == 1 else None


def _dtype(parameter: Any) -> str:
    return {"i32": "int32", "i64": "int64"}.get(parameter.get_element_type().get_type_name(), "int64")

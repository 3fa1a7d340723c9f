"""Checks of an ONNX file against a tree's spec."""

import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Collection, Dict, Iterator, List, Mapping, Tuple

from ..core import child
from ..model.onnx_model import AT_ONCE, Model, name_type, strip_prefix
from ..model.sparsity import digest_places
from ..model.variants import BITS, BLOCK_PREFIX, INPUTS, Spec, Variant, is_feed_forward, parse_name
from .checks import Check, make_check
from .ir_weights import digest_vector
from .leaks import find_paths

OPSET = 10
"""Version of ONNX's operators with which NNCF exports."""

_BITS_BY_LEVELS = {2**bits - less: bits for bits in range(2, 17) for less in (0, 1)}

READABLE = "ONNX: readable"
"""Name of the check that fails if the file is no ONNX file (:class:`launch.model.onnx_model.Model`)."""

Facts = Dict[str, Any]


def check_onnx(model: Model, spec: Spec) -> Tuple[List[Check], Facts]:
    """Return the checks of a tree's ONNX file and the facts.

    These are ``onnx``, ``matrices`` (without the IR's zeros) and the three sparsities of a provenance's
    verification, ``vectors`` and ``neutral`` (:func:`.check_vectors`), ``plain`` (:func:`.check_plain`; empty
    where weights are quantized), ``names`` (parameter by constant) and ``nodes`` (first output by node).

    :raises KitError: the file is no whole ONNX file.
    """
    found = _Matrices(model, spec)
    opset = next((int(entry.version) for entry in model.proto.opset_import if not entry.domain), 0)
    quantizers = [*(model.matrices.values() if model.quantized else ()), *model.activations]
    bits = [(node, _bits(node)) for node in quantizers]
    odd = [
        f"{model.node_label(node)} has {f'{width} bits' if width else 'levels of no number of bits'}"
        for node, width in bits
        if width != BITS
    ]
    facts: Facts = {
        "onnx": {
            "opset": opset,
            "nodes": len(model.nodes),
            "inputs": _values(model.proto.graph.input, model.graph.initializers),
            "outputs": _values(model.proto.graph.output),
            "quantizers": {
                "weights": len(bits) - len(model.activations),
                "activations": len(model.activations),
                "bits": {str(width): count for width, count in sorted(Counter(w for _, w in bits).items())},
            },
        },
        "matrices": found.rows,
        **found.sparsities,
        "names": found.names,
        **_vectors(model, found.names),
        "plain": {}
        if model.quantized
        else {parameter: digest_vector(model.matrix(name)) for name, parameter in found.names.items()},
        "nodes": {node.name: node.output[0] for node in model.nodes if node.name},
    }
    widths = make_check("ONNX: bit widths", odd, f"{BITS} bits in each of {len(bits):,} quantizers")
    checks = [
        Check(READABLE, True, f"{model.path.stat().st_size:,} bytes"),
        Check("ONNX: opset", opset == OPSET, f"{opset}" + ("" if opset == OPSET else f", not {OPSET}")),
        _check_interface(facts["onnx"], spec),
        _check_nodes(model, spec),
        _check_quantizers(facts["onnx"]["quantizers"], spec, found),
        *([widths] if spec.quantized else []),
        found.check_shapes(),
        found.check_sparsity(),
        found.check_each_sparsity() if spec.trained is None else found.check_places(spec.trained),
        make_check("ONNX: no machine paths", _paths(model), "none in names, documentation and metadata"),
    ]
    return checks, facts


class _Matrices:
    """The weight matrices of a file, in the parameters' rows and columns, and their zeros."""

    def __init__(self, model: Model, spec: Spec) -> None:
        self.spec = spec
        self.expected = spec.matrices()
        self.rows: List[Dict[str, Any]] = []
        self.names: Dict[str, str] = {}
        self.faults: List[str] = []
        matrices: Dict[str, Any] = {}
        found = model.matrices.items() if model.quantized == spec.quantized else ()
        for constant, reader in found:
            parameter = model.graph.layer_name(reader)
            if parameter not in self.expected or parameter in matrices:
                label = parameter or model.node_label(reader)
                done = "quantized" if spec.quantized else "read"
                self.faults.append(f"{label} is {done} {'twice' if parameter in matrices else 'too'}")
            else:
                self.names[constant] = parameter
                matrices[parameter] = model.matrix(constant)
        self.shapes: Dict[str, Tuple[int, ...]] = {name: values.shape for name, values in matrices.items()}
        child.report_step("counting zeros")
        self.places: Dict[str, str] = {}
        # numpy lets go of the interpreter while it computes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = list(pool.map(_count, matrices.values()))
            if spec.trained is not None:
                digests = pool.map(lambda values: digest_places(values == 0), matrices.values())
                self.places = dict(zip(matrices, digests))
        for (parameter, shape), (nonzero, finite) in zip(self.shapes.items(), counts):
            size, dense = math.prod(shape), spec.dense_size(parameter)
            if finite < size:
                self.faults.append(f"{parameter} holds values that are not finite")
            row = {"parameter": parameter, "shape": list(shape), "dense": dense, "zeros": size - nonzero}
            self.rows.append(row)
        self.sparsities = self._sparsities()

    def check_shapes(self) -> Check:
        faults = list(self.faults)
        for parameter, wanted in self.expected.items():
            shape = self.shapes.get(parameter)
            if shape is None:
                faults.append(f"{parameter} is missing" + " or not quantized" * self.spec.quantized)
            elif shape != wanted:
                faults.append(f"{parameter} is {_by(shape)}, not {_by(wanted)}")
        if faults and self._other_variant():
            faults.insert(0, f"these are the shapes of {self._other_variant()}")
        text = f"{len(self.expected)} matrices as {self.spec.describe()} has them"
        return make_check("ONNX: matrix shapes", faults, text)

    def _other_variant(self) -> str:
        rows = self.shapes.get(f"{BLOCK_PREFIX}0.intermediate.dense.weight", (0,))[0]
        width = self.shapes.get(f"{BLOCK_PREFIX}0.attention.self.query.weight", (0,))[0]
        own, hidden = parse_name(self.spec.variant), self.spec.hidden
        due = self.spec.heads[0] * self.spec.head_size, self.spec.intermediate_size
        if own is None or width % self.spec.head_size or not width * rows or (width, rows) == due:
            return ""
        whole = (width, rows) == (hidden, self.spec.dense_intermediate_size)
        kept = None if whole else width // self.spec.head_size
        return Variant(own.percent, kept, None if whole else rows, own.precision).name

    def _sparsities(self) -> Dict[str, float]:
        """Return block sparsity, of the dense weights, and both parts' sparsity, of the weights kept."""
        block = [row for row in self.rows if row["parameter"].startswith(BLOCK_PREFIX)]
        left = sum(math.prod(row["shape"]) - row["zeros"] for row in block)
        return {
            "block_sparsity": max(0.0, 1 - left / self.spec.dense_block_weights),
            "attention_sparsity": _share(row for row in block if not is_feed_forward(row["parameter"])),
            "feed_forward_sparsity": _share(row for row in block if is_feed_forward(row["parameter"])),
        }

    def check_sparsity(self) -> Check:
        found, wanted = self.sparsities, self.spec.overall_sparsity
        text = (
            f"{found['block_sparsity']:.6f} of {self.spec.dense_block_weights:,} dense block weights"
            f" (attention {found['attention_sparsity']:.2f}, feed-forward"
            f" {found['feed_forward_sparsity']:.2f} of what is left)"
        )
        tolerance = self.spec.sparsity_tolerance
        passed = abs(found["block_sparsity"] - wanted) <= tolerance
        if not passed:
            text += f"; {wanted:.4f} ± {tolerance:.2g} is wanted"
        return Check("ONNX: block sparsity", passed, text)

    def check_each_sparsity(self) -> Check:
        """Check each block matrix for the zeros that one threshold leaves in random weights."""
        zeros, faults = {row["parameter"]: row["zeros"] for row in self.rows}, []
        for parameter, share in self.spec.expected_zeros().items():
            if self.shapes.get(parameter) != self.expected[parameter]:
                continue
            size = math.prod(self.expected[parameter])
            # Six standard deviations of a share of so many draws, and a margin for the norm's own.
            allowed = 0.01 + 6 * (0.25 / size) ** 0.5
            measured = zeros[parameter] / size
            if abs(measured - share) > allowed:
                faults.append(f"{parameter}: {measured:.3f} zero, {share:.3f} ± {allowed:.3f} expected")
        text = "each block matrix as one threshold over random weights leaves it"
        return make_check("ONNX: sparsity by matrix", faults, text)

    def check_places(self, trained: Mapping[str, Any]) -> Check:
        """Check each block matrix for the checkpoint's zeros: these alone, or these and what was pruned."""
        zeros, kept = {row["parameter"]: row["zeros"] for row in self.rows}, trained["zeros"] == "kept"
        faults, total = [], 0
        for parameter, due in trained["matrices"].items():
            found, total = zeros.get(parameter, 0), total + due["zeros"]
            if kept and self.places.get(parameter) != due["places"]:
                faults.append(
                    f"{parameter}: {found:,} zeros, {due['zeros']:,} in the checkpoint, or elsewhere"
                )
            elif found < due["zeros"]:
                faults.append(f"{parameter}: {found:,} zeros, {due['zeros']:,} in the checkpoint")
        missing = {name for name in self.expected if name.startswith(BLOCK_PREFIX)} - set(trained["matrices"])
        faults += [f"nothing is known of {parameter} in the checkpoint" for parameter in sorted(missing)]
        text = (
            f"the checkpoint's {total:,}, where they were"
            if kept
            else f"{total:,} of the checkpoint, and more"
        )
        return make_check("ONNX: the checkpoint's zeros", faults, text)


def _count(values: Any) -> Tuple[int, int]:
    """Return how many values are nonzero, and how many are finite."""
    import numpy

    flat = values.ravel("K")  # no copy of what is turned
    nonzero = finite = 0
    for start in range(0, len(flat), AT_ONCE):
        block = flat[start : start + AT_ONCE]
        # Compared first: numpy counts what is true many times faster than what is a number.
        nonzero += int(numpy.count_nonzero(block != 0))
        finite += int(numpy.count_nonzero(numpy.isfinite(block)))
    return nonzero, finite


def _vectors(model: Model, matrices: Collection[str]) -> Facts:
    import numpy

    found, neutral = {}, []
    for name, tensor in model.initializers:
        if name in matrices:
            continue
        values = model.array(tensor)
        if values.dtype == numpy.float32 and values.size > 1:
            found[strip_prefix(name)] = digest_vector(values)
            if (values == (1 if name.endswith("weight") else 0)).all():
                neutral.append(strip_prefix(name))
    return {"vectors": found, "neutral": neutral}


def _check_interface(facts: Facts, spec: Spec) -> Check:
    length = spec.sequence_length
    faults = []
    for kind, names, element in (("inputs", INPUTS, "int64"), ("outputs", spec.outputs, "float")):
        wanted = [{"name": name, "shape": [1, length], "type": element} for name in names]
        if facts[kind] != wanted:
            faults.append(f"{kind} {_interface(facts[kind])}, not {_interface(wanted)}")
    text = f"{_interface(facts['inputs'])}; {_interface(facts['outputs'])}"
    return make_check("ONNX: inputs and outputs", faults, text)


def _check_nodes(model: Model, spec: Spec) -> Check:
    names = (strip_prefix(name) for name in model.graph.initializers)
    blocks = {name[len(BLOCK_PREFIX) :].split(".")[0] for name in names if name.startswith(BLOCK_PREFIX)}
    count, layers = len(model.nodes), len(blocks)
    faults = []
    if layers != spec.layers:
        faults.append(f"{layers} layers, not {spec.layers}")
    if count != spec.nodes:
        faults.append(f"{count:,} nodes, not {spec.nodes:,}")
    return make_check("ONNX: layers and nodes", faults, f"{layers} layers, {count:,} nodes")


def _check_quantizers(there: Facts, spec: Spec, found: _Matrices) -> Check:
    weights, activations = there["weights"], there["activations"]
    wanted = len(found.expected) if spec.quantized else 0, spec.activation_quantizers
    text = f"{weights + activations:,} FakeQuantize: {weights:,} of weights, {activations:,} of activations"
    faults = []
    if (weights, activations) != wanted:
        faults.append(f"{text}; {wanted[0]:,} and {wanted[1]:,} are wanted")
        missing = found.expected if spec.quantized else ()
        faults += [f"{name} is not quantized" for name in missing if name not in found.shapes]
    return make_check("ONNX: quantizers", faults, text)


def _bits(quantizer: Any) -> int:
    """Return the bit width of a quantizer with 2^bits levels or one less; 0 for other levels."""
    levels = next((int(attribute.i) for attribute in quantizer.attribute if attribute.name == "levels"), 0)
    return _BITS_BY_LEVELS.get(levels, 0)


def _paths(model: Model) -> Iterator[str]:
    """Yield the absolute paths in a file's names, documentation and metadata."""
    proto = model.proto
    said = [proto.producer_name, proto.producer_version, proto.doc_string]
    said += [proto.graph.name, proto.graph.doc_string]
    said += [text for entry in proto.metadata_props for text in (entry.key, entry.value)]
    said += [text for node in model.nodes for text in (node.name, node.doc_string)]
    said += [name for name, _ in model.constants]
    yield from find_paths("\n".join(said))


def _values(values: Any, leave_out: Collection[str] = ()) -> List[Facts]:
    """Return names, shapes and types; a dimension without a size is 0."""
    return [
        {
            "name": value.name,
            "shape": [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim],
            "type": name_type(value.type.tensor_type.elem_type),
        }
        for value in values
        if value.name not in leave_out
    ]


def _interface(values: List[Dict[str, Any]]) -> str:
    return ", ".join(f"{value['name']} {value['type']} {_by(value['shape'])}" for value in values) or "none"


def _by(shape: Any) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _share(rows: Any) -> float:
    chosen = list(rows)
    size = sum(math.prod(row["shape"]) for row in chosen)
    return sum(row["zeros"] for row in chosen) / size if size else 0.0

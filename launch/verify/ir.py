"""Checks of a tree's ONNX file and IR; :mod:`launch.verify.measuring` runs this module as a process."""

import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ..core import child, paths
from ..core.errors import KitError
from ..model.onnx_model import Model
from ..model.variants import INPUTS, Spec, find_variant
from . import onnx_file
from .checks import Check, make_check, shorten_error
from .ir_weights import (
    RANGE_TOLERANCE,
    SATURATED,
    Stored,
    Weights,
    check_plain,
    check_ranges,
    check_vectors,
    find_collapsed,
    find_operation,
    read_ranges,
    read_vectors,
)
from .ir_xml import IrFile, check_mapping
from .measuring import limit_memory, run_beside
from .runtime import Network, find_quantized, is_constant, read_constant, read_network

AS_RUN_TOLERANCE = 0.25
"""Largest difference of the outputs of ONNX file and IR in 8 bits, in standard deviations of the output;
measured where the runtime computes the two in different ways: 0.08 to 0.12."""

WITHOUT_ROUNDING_TOLERANCE = 0.005
"""The same with :data:`.NO_ROUNDING_LEVELS`; measured: at most 0.0006."""

READABLE = "IR: readable"
"""Name of the check that fails if the IR cannot be read or run."""

Facts = Dict[str, Any]


def check_ir(tree: Path, spec: Spec) -> Tuple[List[Check], Facts]:
    """Return the checks of a tree's ONNX file and IR, and the facts.

    These are the facts of :func:`.check_onnx` and, if both files can be run, ``ir`` and ``outputs`` of a
    provenance's verification, ``ir_zeros`` by parameter, ``saturated`` (shares by quantizer), ``collapsed``
    (ranges that do not fit) and ``constant`` (outputs).
    """
    stem = find_variant(spec.variant).stem
    onnx, xml = tree / f"{stem}.onnx", tree / "ir" / f"{stem}.xml"
    # Beside each other, because reading and compiling keep one core busy.
    with run_beside(_onnx, onnx, xml, spec) as measured:
        # Told only what the ONNX file calls its nodes when that is known; it is read meanwhile.
        nodes: Dict[str, str] = {}
        unreadable = None
        try:
            files = IrFile(xml), Network(xml, nodes)
        except KitError as error:
            unreadable = error
        try:
            checks, facts = measured()
        except KitError as error:
            return [Check(onnx_file.READABLE, False, shorten_error(error.what))], {}
        try:
            if unreadable is not None:
                raise unreadable
            nodes.update(facts["nodes"])
            more, found = _ir(*files, onnx, spec, facts, measured)
        except KitError as error:
            return [*checks, Check(READABLE, False, shorten_error(error.what))], facts
    return checks + more, {**facts, **found}


def _ir(
    ir_file: IrFile, ir: Network, onnx: Path, spec: Spec, found: Facts, measured: Callable[[], Any]
) -> Tuple[List[Check], Facts]:
    """Return the checks and the facts of an IR; ``found`` are the ONNX file's facts."""
    xml = ir.path
    ir_ranges, ir_vectors = read_ranges(ir), read_vectors(ir)
    text = f"version {ir_file.version}, {sum(ir_file.types.values()):,} layers"
    checks = [Check(READABLE, True, text), check_mapping(xml.with_suffix(".mapping"), ir_file)]
    ir_runs = run_as_is(ir, spec)
    beyond = measure_beyond(ir, spec)
    weights, onnx_ranges, onnx_runs = measured()
    vectors = check_vectors(found["vectors"], found["neutral"], ir_vectors)
    zeros = {row["parameter"]: row["zeros"] for row in found["matrices"]}
    if weights is None:
        int8 = len(list(ir.constants("i8")))
        checks += [check_plain(found["plain"], ir_vectors, int8), vectors]
        misfits: List[str] = []
    else:
        int8, misfits = weights.count, weights.find_misfits(found["matrices"])
        checks += [weights.check_count(spec), weights.check_values(), vectors]
        checks += [weights.check_zeros(zeros), check_ranges(onnx_ranges, ir_ranges)]
        zeros = weights.zeros
    apart, exact = measure_difference(onnx_runs, ir_runs), None
    exact_onnx: List[Facts] = []
    exact_ir: List[Facts] = []
    if apart > WITHOUT_ROUNDING_TOLERANCE and weights is not None:
        exact_ir = run_without_rounding(ir, spec)
        del ir
        file = _with_weights(Model(onnx), xml, found)[1]
        exact_onnx = run_without_rounding(file, spec)
        exact = measure_difference(exact_onnx, exact_ir)
    outputs, agreement = check_agreement(apart, exact, spec.quantized)
    checks += [check_finite(onnx_runs + exact_onnx, ir_runs + exact_ir, spec), agreement]
    facts: Facts = {
        "ir": {"version": ir_file.version, "int8_constants": int8, "layers": ir_file.types},
        "ir_zeros": zeros,
        "outputs": outputs,
        "collapsed": [*find_collapsed(onnx_ranges), *misfits],
        "saturated": {name: share for name, share in beyond.items() if not share < SATURATED},
        "constant": find_constant(ir_runs),
    }
    return checks, facts


def _onnx(onnx: Path, xml: Path, spec: Spec) -> Iterator[Any]:
    """Yield an ONNX file's checks and facts, then the weights of both files and its ranges and outputs.

    The weights are None where they have 32 bits: then digests tell whether they are the same.
    """
    child.report_step("reading the ONNX file")
    model = Model(onnx)
    checks, found = onnx_file.check_onnx(model, spec)
    yield checks, found
    weights: Optional[Weights] = None
    if spec.quantized:
        child.report_step("comparing weights")
        weights, file = _with_weights(model, xml, found)
    else:
        file = Network(onnx, found["nodes"])
    del model  # and with it the whole file in memory
    yield weights, read_ranges(file), run_as_is(file, spec)


def _with_weights(model: Model, xml: Path, found: Facts) -> Tuple[Weights, Network]:
    """Return the comparison of both files' weights, and the ONNX file with the IR's weights."""
    matrices, ir = find_quantized(model, found["names"]), Network(xml, found["nodes"])
    constants = [Stored(ir, one) for one in ir.constants("i8")]
    weights = Weights(matrices, constants, found["names"])
    given = {one.name: find_operation(one, matrices[one.name]) for one in constants if one.name in matrices}
    operations = {name: one for name, one in given.items() if one is not None}
    return weights, read_network(model, found["nodes"], operations)


def make_feeds(spec: Spec) -> List[Dict[str, Any]]:
    """Return the fixed inputs: int64 arrays of 1 × sequence length, by input name."""
    import numpy

    drawn = []
    # numpy's legacy generator: its numbers are the same in every release and on every machine.
    generator = numpy.random.RandomState(0)
    length = spec.sequence_length
    for padding in (0, 84 * length // 384):
        tokens = generator.randint(0, spec.vocab_size, (1, length)).astype("int64")
        mask, types = numpy.ones((1, length), "int64"), numpy.zeros((1, length), "int64")
        mask[0, length - padding :] = 0
        types[0, length // 4 :] = 1
        drawn.append(dict(zip(INPUTS, (tokens * mask, mask, types))))
    return drawn


def run_as_is(network: Network, spec: Spec) -> List[Facts]:
    """Return a model's outputs for each of :func:`make_feeds`; errors as :meth:`.Network.run`."""
    child.report_step(f"running {network.path.name}")
    return network.run(make_feeds(spec))


def run_without_rounding(network: Network, spec: Spec) -> List[Facts]:
    """Return the outputs for the last of the feeds; the quantizers of ``network`` no longer round then."""
    child.report_step(f"running {network.path.name} without rounding")
    network.disable_rounding()
    return network.run(make_feeds(spec)[-1:])


def measure_beyond(network: Network, spec: Spec) -> Dict[str, float]:
    """Return the share of values beyond the range of each quantizer, on the last of the feeds."""
    import numpy

    child.report_step(f"measuring the ranges of {network.path.name}")
    quantizers = {
        network.tensor_name(one): [one.input_value(index) for index in range(3)]
        for one in network.quantizers()
    }
    for name, (_, *ends) in quantizers.items():
        if not all(map(is_constant, ends)):
            raise KitError(
                f"The range of quantizer {name} is not constant.", where=paths.show_path(network.path)
            )
    if not quantizers:
        return {}
    # The values themselves: for the runtime to count them, each takes two operations more to compile.
    (outputs,) = network.run(make_feeds(spec)[-1:], {name: value for name, (value, *_) in quantizers.items()})
    shares = {}
    for name, (_, *ends) in quantizers.items():
        low, high = map(read_constant, ends)
        margin = (high - low) * RANGE_TOLERANCE
        inside = outputs[name] >= low - margin
        inside &= outputs[name] <= high + margin
        shares[name] = 1 - numpy.count_nonzero(inside) / max(1, inside.size)
    return shares


def check_agreement(as_run: float, exact: Optional[float], quantized: bool = True) -> Tuple[Facts, Check]:
    """Return ``outputs`` of a provenance's verification, and their check; ``exact`` is without rounding."""
    parts = [("as_run", "in 8 bits", as_run, AS_RUN_TOLERANCE)]
    if not quantized:
        parts = [("as_run", "in 32 bits", as_run, WITHOUT_ROUNDING_TOLERANCE)]
    if exact is not None:
        parts.append(("without_rounding", "without rounding", exact, WITHOUT_ROUNDING_TOLERANCE))
    outputs = {name: {"difference": apart, "tolerance": most} for name, _, apart, most in parts}
    text = ", ".join(
        f"{how} {apart:.2g} of a standard deviation apart (at most {most})" for _, how, apart, most in parts
    )
    return outputs, Check("outputs: agreement", all(apart <= most for *_, apart, most in parts), text)


def check_finite(onnx: List[Facts], ir: List[Facts], spec: Spec) -> Check:
    """Check that all outputs are there and their values finite."""
    import numpy

    faults = []
    for file, runs in (("ONNX file", onnx), ("IR", ir)):
        for run in runs:
            if sorted(run) != sorted(spec.outputs):
                faults.append(f"the {file} has outputs {', '.join(sorted(run))}")
            others = {name: int((~numpy.isfinite(values)).sum()) for name, values in run.items()}
            faults += [
                f"output {name} of the {file} has {count:,} others" for name, count in others.items() if count
            ]
    count = sum(values.size for values in ir[-1].values())
    return make_check("outputs: finite", faults, f"{len(onnx) + len(ir)} runs of {count:,} values")


def measure_difference(one: List[Facts], other: List[Facts]) -> float:
    """Return the largest root mean square of a difference of outputs, in standard deviations of ``one``'s.

    It is 1e9 for other outputs, for values that are not finite, and if an output without deviation differs.
    """
    import numpy

    largest = 0.0
    for left, right in zip(one, other):
        for name, values in left.items():
            if name not in right or right[name].shape != values.shape:
                return 1e9
            apart = float(numpy.sqrt(numpy.mean(numpy.square(right[name] - values, dtype="float64"))))
            scale = float(values.std(dtype="float64"))
            ratio = apart / scale if scale else (1e9 if apart else 0.0)
            largest = max(largest, ratio if numpy.isfinite(ratio) else 1e9)
    return largest


def find_constant(runs: List[Facts]) -> List[str]:
    """Return the outputs that are the same at every token, or for every input."""
    found = []
    for name, values in runs[0].items():
        if float(values.max() - values.min()) <= 1e-6 * max(1.0, float(abs(values).max())):
            found.append(f"output {name} is {float(values.flat[0]):.6g} at every token")
        elif all((run[name] == values).all() for run in runs[1:]):
            found.append(f"output {name} is the same for other inputs")
    return found


def _answer(folder: str, variant: str, model: str, result: str, weights: str = "") -> int:
    limit_memory()
    trained = json.loads(Path(weights).read_text(encoding="utf-8")) if weights else None
    checks, facts = check_ir(Path(folder), Spec.from_model(variant, json.loads(model), trained))
    content = {"checks": [vars(check) for check in checks], "facts": facts}
    Path(result).write_text(json.dumps(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(child.run_body(_answer, *sys.argv[1:]))

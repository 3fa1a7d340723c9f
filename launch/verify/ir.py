"""A tree's ONNX file, and its IR in OpenVINO's runtime against the ONNX file that it was made from.

Run as a process by :func:`launch.verify.measuring.measure_apart`.
"""

import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from ..core import status
from ..core.errors import KitError
from ..model.onnx_model import Model
from ..model.spec import Spec
from ..model.variants import VARIANTS
from . import ir_run, onnx_file
from .checks import Check, shorten_error
from .ir_weights import (
    Stored,
    Weights,
    check_ranges,
    check_vectors,
    find_collapsed,
    find_operation,
    read_ranges,
    read_vectors,
)
from .ir_xml import IrFile, check_mapping
from .measuring import limit_memory, run_beside
from .runtime import Network, find_quantized, read_network

READABLE = "IR: readable"
"""Name of the check that fails where an IR's files are none, or the runtime does not take them."""

Facts = Dict[str, Any]


def check_ir(tree: Path, spec: Spec) -> Tuple[List[Check], Facts]:
    """Return the checks of a tree's ONNX file and of its IR beside it, and what was measured.

    The facts are those of :func:`.check_onnx` and, where the IR can be read and both be
    run, ``ir`` and ``outputs`` of a provenance's verification, ``ir_zeros`` by parameter, ``saturated``
    (shares by quantizer), ``collapsed`` (ranges that do not fit) and ``constant`` outputs.
    """
    stem = VARIANTS[spec.variant].stem
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
    """Return the checks of an IR and its facts; ``found`` are the ONNX file's."""
    xml = ir.path
    ir_ranges, ir_vectors = read_ranges(ir), read_vectors(ir)
    text = f"version {ir_file.version}, {sum(ir_file.types.values()):,} layers"
    checks = [Check(READABLE, True, text), check_mapping(xml.with_suffix(".mapping"), ir_file)]
    ir_runs = ir_run.run_as_is(ir, spec)
    beyond = ir_run.measure_beyond(ir, spec)
    weights, onnx_ranges, onnx_runs = measured()
    checks += [
        weights.check_count(spec),
        weights.check_values(),
        check_vectors(found["vectors"], found["neutral"], ir_vectors),
        weights.check_zeros({row["parameter"]: row["zeros"] for row in found["matrices"]}),
        check_ranges(onnx_ranges, ir_ranges),
    ]
    apart, exact = ir_run.measure_difference(onnx_runs, ir_runs), None
    exact_onnx: List[Facts] = []
    exact_ir: List[Facts] = []
    if apart > ir_run.WITHOUT_ROUNDING_TOLERANCE:
        exact_ir = ir_run.run_without_rounding(ir, spec)
        del ir
        file = _with_weights(Model(onnx), xml, found)[1]
        exact_onnx = ir_run.run_without_rounding(file, spec)
        exact = ir_run.measure_difference(exact_onnx, exact_ir)
    outputs, agreement = ir_run.check_agreement(apart, exact)
    checks += [ir_run.check_finite(onnx_runs + exact_onnx, ir_runs + exact_ir, spec), agreement]
    facts: Facts = {
        "ir": {"version": ir_file.version, "int8_constants": weights.count, "layers": ir_file.types},
        "ir_zeros": weights.zeros,
        "outputs": outputs,
        "collapsed": [*find_collapsed(onnx_ranges), *weights.find_misfits(found["matrices"])],
        "saturated": {name: share for name, share in beyond.items() if not share < ir_run.SATURATED},
        "constant": ir_run.find_constant(ir_runs),
    }
    return checks, facts


def _onnx(onnx: Path, xml: Path, spec: Spec) -> Iterator[Any]:
    """Yield checks and facts of an ONNX file; then weights of both files, its ranges and its outputs."""
    status.report_step("reading the ONNX file")
    model = Model(onnx)
    checks, found = onnx_file.check_onnx(model, spec)
    yield checks, found
    status.report_step("comparing weights")
    weights, file = _with_weights(model, xml, found)
    del model  # and with it the whole file in memory
    yield weights, read_ranges(file), ir_run.run_as_is(file, spec)


def _with_weights(model: Model, xml: Path, found: Facts) -> Tuple[Weights, Network]:
    """Compare an IR's weights with an ONNX file's, and return the file in the runtime, with the IR's."""
    matrices, ir = find_quantized(model, found["names"]), Network(xml, found["nodes"])
    constants = [Stored(ir, one) for one in ir.constants("i8")]
    weights = Weights(matrices, constants, found["names"])
    given = {one.name: find_operation(one, matrices[one.name]) for one in constants if one.name in matrices}
    operations = {name: one for name, one in given.items() if one is not None}
    return weights, read_network(model, found["nodes"], operations)


def _answer(folder: str, variant: str, model: str, result: str) -> int:
    limit_memory()
    checks, facts = check_ir(Path(folder), Spec.from_model(variant, json.loads(model)))
    content = {"checks": [vars(check) for check in checks], "facts": facts}
    Path(result).write_text(json.dumps(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(status.run_body(_answer, *sys.argv[1:]))

"""What an IR is, measured in OpenVINO's runtime, against the ONNX file that it was made from.

Run as a process by :func:`launch.verify.measuring.ask`.
"""

from pathlib import Path
from typing import Any, Dict, List, Tuple

from .. import status
from ..errors import KitError
from ..spec import Spec
from ..variants import VARIANTS
from . import ir_run
from .checks import Check
from .ir_weights import (
    Ranges,
    Weights,
    check_ranges,
    check_vectors,
    collapsed,
    ranges,
    stored,
    vectors,
)
from .ir_xml import IrFile, check_mapping
from .measuring import beside, serve
from .onnx_run import OnnxFile
from .runtime import Network

READABLE = "IR: readable"
"""Name of the check that fails where an IR's files are none, or the runtime does not take them."""

Facts = Dict[str, Any]


def check(tree: Path, spec: Spec, found: Facts) -> Tuple[List[Check], Facts]:
    """Return the checks of a tree's IR beside its ONNX file, and what was measured.

    The facts are ``ir`` and ``outputs`` of a provenance's verification, ``ir_zeros`` by parameter,
    ``saturated`` (shares by quantizer), ``collapsed`` (ranges that do not fit) and ``constant`` outputs.

    :param found: the facts of :func:`launch.verify.onnx_file.check`.
    :raises KitError: the IR cannot be read, or one of the two not be run.
    """
    stem = VARIANTS[spec.variant].stem
    onnx, xml = tree / f"{stem}.onnx", tree / "ir" / f"{stem}.xml"
    ir_file = IrFile(xml)
    # Beside each other, because reading and compiling keep one core busy.
    with beside(_onnx, onnx, xml, spec, found) as measured:
        status.step("reading the IR")
        ir = Network(xml, found["nodes"])
        ir_ranges, ir_vectors = ranges(ir), vectors(ir)
        checks = [
            Check(READABLE, True, f"version {ir_file.version}, {sum(ir_file.types.values()):,} layers"),
            _attempt("IR: mapping", lambda: _check_mapping(xml, ir_file)),
        ]
        ir_runs = ir_run.as_it_is(ir, spec)
        beyond = ir_run.shares_beyond(ir, spec)
        weights, onnx_ranges, onnx_runs = measured()
    checks += [
        weights.check_count(spec),
        weights.check_values(),
        check_vectors(found["vectors"], found["neutral"], ir_vectors),
        weights.check_zeros({row["parameter"]: row["zeros"] for row in found["matrices"]}),
        check_ranges(onnx_ranges, ir_ranges),
    ]
    apart, exact = ir_run.difference(onnx_runs, ir_runs), None
    exact_onnx: List[Facts] = []
    exact_ir: List[Facts] = []
    if apart > ir_run.WITHOUT_ROUNDING_TOLERANCE:
        exact_ir = ir_run.without_rounding(ir, spec)
        del ir
        exact_onnx = ir_run.without_rounding(OnnxFile(onnx, found["names"]).network(found["nodes"]), spec)
        exact = ir_run.difference(exact_onnx, exact_ir)
    outputs, agreement = ir_run.agreement(apart, exact)
    checks += [ir_run.check_finite(onnx_runs + exact_onnx, ir_runs + exact_ir, spec), agreement]
    facts: Facts = {
        "ir": {
            "version": ir_file.version,
            "int8_constants": weights.count,
            "layers": ir_file.types,
        },
        "ir_zeros": weights.zeros,
        "outputs": outputs,
        "collapsed": [*collapsed(onnx_ranges), *weights.signs(found["matrices"])],
        **ir_run.signs(ir_runs, beyond),
    }
    return checks, facts


def _onnx(onnx: Path, xml: Path, spec: Spec, found: Facts) -> Tuple[Weights, Ranges, List[Facts]]:
    """Return weights of both files, and ranges and outputs of the ONNX file."""
    status.step("comparing weights")
    file = OnnxFile(onnx, found["names"])
    weights = Weights(file, stored(Network(xml, found["nodes"])), found["names"])
    network = file.network(found["nodes"])
    del file
    return weights, ranges(network), ir_run.as_it_is(network, spec)


def _attempt(name: str, body: Any) -> Check:
    try:
        return Check(name, True, body())
    except KitError as error:
        return Check(name, False, error.what)


def _check_mapping(xml: Path, file: IrFile) -> str:
    return f"{check_mapping(xml.with_suffix('.mapping'), file):,} tensors of the ONNX file found in the IR"


if __name__ == "__main__":
    serve(check)

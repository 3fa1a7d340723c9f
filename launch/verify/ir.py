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
from .ir_weights import Weights, check_ranges, check_vectors, collapsed, ranges, store_in_int8, vectors
from .ir_xml import IrFile, check_mapping
from .measuring import serve
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
    file = IrFile(xml)
    status.step("reading the IR")
    ir = Network(xml, found["nodes"])
    ir_ranges, ir_vectors = ranges(ir), vectors(ir)
    checks = [
        Check(READABLE, True, f"version {file.version}, {sum(file.types.values()):,} layers"),
        _attempt("IR: mapping", lambda: _check_mapping(xml, file)),
    ]
    # The IR is run before the ONNX file is in memory, and gone before that is run.
    as_it_is = ir_run.as_it_is(ir, spec)
    exact, beyond = ir_run.without_rounding(ir, spec, shares=True)
    ir_runs = ir_run.Runs(as_it_is, exact)
    status.step("reading the ONNX file into the runtime")
    network = Network(onnx, found["nodes"])
    status.step("comparing weights and ranges")
    weights = Weights(network, ir, found["names"])
    del ir
    onnx_ranges = ranges(network)
    checks += [
        weights.check_count(spec),
        weights.check_values(),
        check_vectors(found["vectors"], found["neutral"], ir_vectors),
        weights.check_zeros({row["parameter"]: row["zeros"] for row in found["matrices"]}),
        check_ranges(onnx_ranges, ir_ranges),
    ]
    as_it_is = ir_run.as_it_is(network, spec)
    store_in_int8(network)
    exact, _ = ir_run.without_rounding(network, spec)
    runs = ir_run.Runs(as_it_is, exact)
    outputs, agreement = ir_run.agreement(runs, ir_runs)
    checks += [ir_run.check_finite(runs, ir_runs, spec), agreement]
    facts: Facts = {
        "ir": {
            "version": file.version,
            "int8_constants": weights.count,
            "layers": file.types,
        },
        "ir_zeros": weights.zeros,
        "outputs": outputs,
        "collapsed": [*collapsed(onnx_ranges), *weights.signs(found["matrices"])],
        **ir_run.signs(ir_runs, beyond),
    }
    return checks, facts


def _attempt(name: str, body: Any) -> Check:
    try:
        return Check(name, True, body())
    except KitError as error:
        return Check(name, False, error.what)


def _check_mapping(xml: Path, file: IrFile) -> str:
    return f"{check_mapping(xml.with_suffix('.mapping'), file):,} tensors of the ONNX file found in the IR"


if __name__ == "__main__":
    serve(check)

"""Signs of a degenerate model; the recipe causes the known ones (launch/README.md, Verification)."""

import math
from typing import Any, List, Mapping

from ..model.variants import BLOCK_PREFIX, Spec, is_feed_forward
from .checks import SHOWN, Finding, list_some

ONE_THRESHOLD = (
    "the recipe prunes random weights by one threshold over matrices of two sizes, and where much is to"
    " go that takes the larger ones whole, as in upstream's own unstructured BERT-large"
)
"""The reason of known findings."""

_PARTS = {
    "attention": ("attention.self.value", "attention.output.dense"),
    "feed-forward": ("intermediate.dense", "output.dense"),
}
"""Matrices of each part of a layer; if one of them is all zero, the part adds only its bias."""


def find_degeneracy(spec: Spec, facts: Mapping[str, Any]) -> List[Finding]:
    """Return the signs of a degenerate model in the facts of :func:`launch.verify.ir.check_ir`."""
    kept = facts.get("ir_zeros", {})
    empty = [
        row["parameter"]
        for row in facts["matrices"]
        if max(row["zeros"], kept.get(row["parameter"], 0)) == math.prod(row["shape"])
    ]
    expected = spec.expected_zeros()
    # A norm of n numbers drawn deviates by 0.45/√n of itself; six of these deviations and some.
    due = {
        row["parameter"]
        for row in facts["matrices"]
        if row["parameter"] in empty
        and expected.get(row["parameter"], 0.0) >= 1 - 3 / math.prod(row["shape"]) ** 0.5
    }
    found = []
    for part, inside, count in (("attention", False, 4), ("feed-forward", True, 2)):
        gone = [name for name in due if is_feed_forward(name) == inside]
        if gone:
            text = f"{len(gone)} of {count * spec.layers} {part} matrices are all zero"
            found.append(_finding("all-zero matrices", text, True))
    others = sorted(set(empty) - due)
    if others:
        text = list_some(others) + (" is" if len(others) == 1 else " are") + " all zero"
        found.append(_finding("all-zero matrices", text, False))
    for part, inner in _PARTS.items():
        names = {
            layer: {f"{BLOCK_PREFIX}{layer}.{name}.weight" for name in inner} & set(empty)
            for layer in range(spec.layers)
        }
        dead = [layer for layer, zero in names.items() if zero]
        if dead:
            which = f"{len(dead)} of {spec.layers} layers"
            if len(dead) < spec.layers:
                which += f" ({_numbers(dead)})"
            text = f"the {part} part of {which} adds nothing but its bias"
            found.append(_finding("dead layers", text, all(zero <= due for zero in names.values())))
    found += [_finding("constant outputs", text, False) for text in facts.get("constant", [])]
    beyond = [
        f"{share:.0%} of the values at quantizer {name} are beyond its range"
        for name, share in facts.get("saturated", {}).items()
    ]
    beyond += facts.get("collapsed", [])
    return [*found, _finding("saturated ranges", list_some(beyond), False)] if beyond else found


def _finding(kind: str, text: str, known: bool) -> Finding:
    return Finding(kind, text, known, ONE_THRESHOLD if known else "")


def _numbers(layers: List[int]) -> str:
    shown = ", ".join(map(str, layers[:SHOWN]))
    return shown + (" …" if len(layers) > SHOWN else "")

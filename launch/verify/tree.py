"""A whole tree: its files, what they say of themselves, and what is in them."""

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from .. import child, provenance, sparsity, sums, trees
from ..errors import KitError
from ..spec import Spec, bert_large
from ..variants import VARIANTS, Variant
from . import ir, leaks, measuring, onnx_file
from .checks import Check, Finding, from_faults
from .degeneracy import findings

REFUSED = "files: no tree"
"""Name of the check that fails where there is nothing to measure."""

Tick = Callable[[Optional[str]], None]


@dataclass(frozen=True)
class Result:
    """What verifying one tree gave.

    :param measured: ``verification`` of a provenance; None where ONNX file or IR could not be measured.
    :param peak_bytes: the largest process.
    :param cpu_seconds: processor time of all processes.
    """

    variant: str
    checks: List[Check]
    findings: List[Finding]
    measured: Optional[Dict[str, Any]]
    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0

    @property
    def failed(self) -> List[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    @property
    def unknown(self) -> List[Finding]:
        """The findings that the recipe does not bring about."""
        return [finding for finding in self.findings if not finding.known]

    @property
    def passed(self) -> bool:
        """Whether the tree may be published."""
        return not self.failed and not self.unknown

    def faults(self) -> List[str]:
        """Return a line for each reason not to trust the tree."""
        lines = [f"{check.name}: {check.text}" for check in self.failed]
        return lines + [f"{finding.kind}: {finding.text}" for finding in self.unknown]


def require(result: Result, tree: str) -> Dict[str, Any]:
    """Return what was measured on a tree that passed.

    :param tree: where it is, for the error.
    :raises KitError: it did not pass.
    """
    if result.passed and result.measured is not None:
        return result.measured
    raise KitError(
        f"{result.variant} is not what it must be:\n" + "\n".join(result.faults()),
        where=tree,
        hint="Do not use these files. Run the same command again; if it ends here again, this is a defect of"
        " the kit or an input that it does not know: what stands above says where to look.",
    )


def measure(
    folder: Path, spec: Spec, python: Path, env: Dict[str, str], tick: Tick, inherit: Sequence[int] = ()
) -> Result:
    """Check what the ONNX file and the IR in ``folder`` hold.

    :param python: the interpreter of the kit's environment.
    :param env: the environment to start from.
    :param tick: called twice a second with the step.
    """
    checks: List[Check] = []
    facts: Dict[str, Any] = {}
    usages = []
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        for name, readable in (("onnx_file", onnx_file.READABLE), ("ir", ir.READABLE)):
            try:
                more, found, usage = measuring.ask(
                    name, python, folder, spec, facts, Path(scratch), env, tick, inherit
                )
            except KitError as error:
                checks.append(Check(readable, False, _one_line(error.what)))
                break
            checks += more
            facts.update(found)
            usages.append(usage)
    used = child.together(usages)
    took = used.seconds, used.peak_bytes, used.cpu_seconds
    checks.append(_check_texts(folder, trees.all_files(VARIANTS[spec.variant].stem)))
    checks.append(_check_report(folder, spec, facts))
    if len(usages) < 2:
        return Result(spec.variant, checks, [], None, *took)
    signs = findings(spec, facts)
    return Result(spec.variant, checks, signs, _document(checks, signs, facts), *took)


def verify(tree: Path, python: Path, tick: Tick) -> Result:
    """Check a published tree, which is called by its variant's name."""
    variant = VARIANTS[tree.name]
    checks = list(check_files(tree, variant, tick))
    content: Dict[str, Any] = {}
    try:
        content = provenance.read(tree)
        spec = Spec.from_model(variant.name, content["model"])
        checks.append(_check_variant(content, variant))
    except KitError as error:
        checks.append(Check("provenance", False, _one_line(error.what)))
        spec = Spec.of(variant, bert_large(variant))
    contradiction = spec.contradiction()
    if contradiction:
        checks.append(Check("model", False, contradiction))
        spec = Spec.of(variant, bert_large(variant))
    else:
        checks.append(Check("model", True, spec.describe()))
    found = measure(tree, spec, python, dict(os.environ), tick)
    checks += found.checks
    if found.measured is not None and content:
        checks.append(_check_recorded(content["verification"], found.measured))
    took = found.seconds, found.peak_bytes, found.cpu_seconds
    return Result(variant.name, checks, found.findings, found.measured, *took)


def check_files(tree: Path, variant: Variant, tick: Tick) -> List[Check]:
    """Check that the files of a tree are there, no others are, and all are as listed."""
    wanted = {*trees.all_files(variant.stem), trees.PROVENANCE, sums.NAME}
    there = set(sums.listed(tree))
    faults = [f"{name} is missing" for name in sorted(wanted - there)]
    faults += [f"{name} does not belong to a tree" for name in sorted(there - wanted)]
    checks = [from_faults("files: complete", faults, f"{len(wanted)} files")]
    try:
        entries = sums.read(tree)
        faults = sums.faults(tree, entries, lambda name: tick(f"checksum of {name}"))
        checks.append(from_faults("files: checksums", faults, f"{len(entries)} files as {sums.NAME} says"))
    except KitError as error:
        checks.append(Check("files: checksums", False, _one_line(error.what)))
    return checks


def _check_variant(content: Dict[str, Any], variant: Variant) -> Check:
    named = content["variant"]
    text = "format 2, valid" if named == variant.name else f"it is that of {named}"
    return Check("provenance", named == variant.name, text)


def _check_texts(folder: Path, names: List[str]) -> Check:
    faults = leaks.in_files(folder, [*names, trees.PROVENANCE])
    return from_faults("files: no machine paths", faults, "no absolute path in the text files")


def _check_report(folder: Path, spec: Spec, facts: Dict[str, Any]) -> Check:
    """Check that the sparsity report says what was measured."""
    name = "sparsity report"
    path = sparsity.report_paths(folder / f"{VARIANTS[spec.variant].stem}.onnx")[0]
    try:
        report = {row.layer: (list(row.shape), row.nnz) for row in sparsity.read_report(path)}
    except (OSError, ValueError, KeyError, TypeError):
        return Check(name, False, f"{path.name} cannot be read")
    if "matrices" not in facts:
        return Check(name, True, f"{len(report)} matrices; nothing to compare them with")
    faults = []
    for row in facts["matrices"]:
        nonzero = math.prod(row["shape"]) - row["zeros"]
        if report.pop(row["parameter"], None) != (row["shape"], nonzero):
            faults.append(f"{row['parameter']} has {nonzero:,} nonzero values, the report says otherwise")
    faults += [f"{layer or 'a matrix without a name'} is in the report only" for layer in report]
    return from_faults(name, faults, f"{len(facts['matrices'])} matrices as measured")


def _check_recorded(recorded: Dict[str, Any], measured: Dict[str, Any]) -> Check:
    """Check that the provenance says what was measured, as far as that is the same on every machine."""
    names = (
        *("onnx", "ir", "matrices", "findings"),
        *("block_sparsity", "attention_sparsity", "feed_forward_sparsity"),
    )
    faults = [f"{name} differs from what was measured" for name in names if recorded[name] != measured[name]]
    return from_faults("provenance: as measured", faults, "what it says of the files is so")


def _document(checks: List[Check], signs: List[Finding], facts: Dict[str, Any]) -> Dict[str, Any]:
    """Return ``verification`` of a provenance."""
    zeros = facts["ir_zeros"]
    return {
        "checks": [check.as_dict() for check in checks],
        "findings": [finding.as_dict() for finding in signs],
        "onnx": facts["onnx"],
        "ir": facts["ir"],
        "matrices": [{**row, "ir_zeros": zeros.get(row["parameter"], 0)} for row in facts["matrices"]],
        "outputs": facts["outputs"],
        **{name: facts[name] for name in ("block_sparsity", "attention_sparsity", "feed_forward_sparsity")},
    }


def _one_line(text: str) -> str:
    """Return an error's first line and, where there are more, its last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " … ".join([lines[0], *lines[1:][-1:]])


def present(out: Path) -> List[Path]:
    """Return the trees below ``out``, in the variants' order."""
    return [out / name for name in VARIANTS if (out / name).is_dir()]


def chosen(out: Path, name: str) -> List[Path]:
    """Return the tree of the variant ``name`` below ``out``, or all that are there where ``name`` is empty.

    :raises KitError: there is none.
    """
    found = [tree for tree in present(out) if not name or tree.name == name]
    if found:
        return found
    raise KitError(
        f"There is no tree {name}." if name else "There is no tree.",
        where=f"OUT={out}",
        hint="Make it (make variant V=…, make all), or set OUT= to the folder that the trees are in.",
    )

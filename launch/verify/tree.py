"""Verification of a whole tree, and its result in words."""

import csv
import math
import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..artifact import provenance, sums, trees
from ..core import child, paths
from ..core.errors import KitError
from ..core.progress import Progress, align_columns, escape_text, format_size
from ..model import sparsity
from ..model.variants import (
    BLOCK_PREFIX,
    VARIANTS,
    Spec,
    Variant,
    find_variant,
    list_report_paths,
    make_bert_large,
    parse_name,
)
from . import ir, leaks, measuring
from .checks import Check, Finding, list_some, make_check, shorten_error
from .degeneracy import find_degeneracy

Tick = Callable[[Optional[str]], None]

_SPARSITIES = ("block_sparsity", "attention_sparsity", "feed_forward_sparsity")

_LABEL = 29
"""Columns of the longest name of a check."""


@dataclass(frozen=True)
class Result:
    """The result of verifying a tree; ``peak_bytes`` are the largest process's, ``cpu_seconds`` those of all.

    :param measured: ``verification`` of a provenance; None if ONNX file or IR could not be measured.
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
        """The checks that failed."""
        return [check for check in self.checks if not check.passed]

    @property
    def unknown(self) -> List[Finding]:
        """The findings that the recipe does not cause."""
        return [finding for finding in self.findings if not finding.known]

    @property
    def passed(self) -> bool:
        """Whether the tree may be published."""
        return not self.failed and not self.unknown


def require_passed(result: Result, tree: str, hint: str) -> Dict[str, Any]:
    """Return what was measured on a tree that passed; raise a KitError with ``hint`` for another."""
    if result.passed and result.measured is not None:
        return result.measured
    faults = [f"{check.name}: {check.text}" for check in result.failed]
    faults += [f"{finding.kind}: {finding.text}" for finding in result.unknown]
    what = "\n".join([f"{result.variant} is not what it must be:", *faults])
    raise KitError(what, where=tree, hint=hint)


def suggest_again(tree: Path) -> str:
    """Return what to do about a published tree that did not pass."""
    return (
        "Do not use these files. Remove the tree and make it again, or copy it again from where it came:"
        f" rm -r {shlex.quote(paths.show_path(tree))} && make variant V={tree.name}"
    )


def measure_files(
    folder: Path, spec: Spec, python: Path, env: Dict[str, str], tick: Tick, inherit: Sequence[int] = ()
) -> Result:
    """Check the ONNX file and the IR in ``folder``; parameters as :func:`.measure_apart`."""
    facts: Dict[str, Any] = {}
    used = child.Usage(0.0, 0)
    try:
        checks, facts, used = measuring.measure_apart(python, folder, spec, env, tick, inherit)
    except KitError as error:
        checks = [Check(ir.READABLE, False, shorten_error(error.what))]
    faults = leaks.find_leaks(folder, [*trees.list_files(find_variant(spec.variant).stem), trees.PROVENANCE])
    checks.append(make_check("files: no machine paths", faults, "no absolute path in the text files"))
    checks.append(_check_report(folder, spec, facts))
    signs = find_degeneracy(spec, facts) if "ir" in facts else []
    measured = _document(checks, signs, facts) if "ir" in facts else None
    took = used.seconds, used.peak_bytes, used.cpu_seconds
    return Result(spec.variant, checks, signs, measured, *took)


def verify_tree(tree: Path, python: Path, tick: Tick) -> Result:
    """Check a published tree, which has its variant's name."""
    variant = find_variant(tree.name)
    checks, entries = check_files(tree, variant, tick)
    names = (*trees.list_files(variant.stem), trees.PROVENANCE)
    if any(os.path.lexists(str(tree / name)) and not _is_plain(tree / name) for name in names):
        return Result(variant.name, checks, [], None, 0.0, 0)  # such a thing is not opened
    content: Dict[str, Any] = {}
    try:
        content = provenance.read_provenance(tree)
        faults = list(provenance.find_disagreements(tree, entries, content))
        checks.append(make_check("provenance", faults, f"format {trees.FORMAT}, valid"))
    except KitError as error:
        checks.append(Check("provenance", False, shorten_error(error.what)))
    spec = _spec(tree, variant)
    contradiction = spec.contradiction()
    checks.append(Check("model", contradiction is None, contradiction or spec.describe()))
    if contradiction:
        spec = make_bert_large(variant)
    found = measure_files(tree, spec, python, dict(os.environ), tick)
    checks += found.checks
    if found.measured is not None and content:
        checks.append(_check_recorded(content, found.measured))
    return replace(found, checks=checks)


def _spec(tree: Path, variant: Variant) -> Spec:
    """Return the spec by the model in the tree's provenance; BERT-large's if that cannot be read."""
    content = trees.read_some_provenance(tree)
    try:
        spec = Spec.from_model(variant.name, content["model"], content["weights"])
        spec.contradiction()
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return make_bert_large(variant)
    return spec


def check_files(tree: Path, variant: Variant, tick: Tick) -> Tuple[List[Check], Dict[str, str]]:
    """Check that a tree has its files, no others, and the listed bytes; return the list, too."""
    wanted = {*trees.list_files(variant.stem), trees.PROVENANCE, sums.NAME}
    there = set(sums.list_files(tree))
    faults = [f"{name} is missing" for name in sorted(wanted - there)]
    faults += [f"{sums.show_name(name)} does not belong to a tree" for name in sorted(there - wanted)]
    faults += [f"{name} is no regular file" for name in sorted(wanted & there) if not _is_plain(tree / name)]
    checks = [make_check("files: complete", faults, f"{len(wanted)} files")]
    entries: Dict[str, str] = {}
    try:
        entries = sums.read_sums(tree)
        faults = sums.find_faults(tree, entries, lambda name: tick(f"checksum of {name}"))
        checks.append(make_check("files: checksums", faults, f"{len(entries)} files as {sums.NAME} says"))
    except KitError as error:
        checks.append(Check("files: checksums", False, shorten_error(error.what)))
    return checks, entries


def require_published(tree: Path, content: Mapping[str, Any], entries: Mapping[str, str], tick: Tick) -> None:
    """:raises KitError: a tree's bytes are not as its checksums and its provenance list them."""
    faults = sums.find_faults(tree, entries, lambda name: tick(f"checksum of {name}"))
    faults += provenance.find_disagreements(tree, entries, dict(content))
    if faults:
        raise KitError(
            f"The tree is not as it was published: {list_some(faults)}.",
            where=paths.show_path(tree),
            hint=f"Make it again (make variant V={tree.name}), or copy it again from where it came.",
        )


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _check_report(folder: Path, spec: Spec, facts: Dict[str, Any]) -> Check:
    name = "sparsity report"
    path = list_report_paths(folder / f"{find_variant(spec.variant).stem}.onnx")[0]
    try:
        if path.stat().st_size > leaks.MAX_BYTES:
            raise ValueError("too long")
        report = {row.layer: (list(row.shape), row.nnz) for row in sparsity.read_report(path)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        return Check(name, False, f"{path.name} cannot be read")
    if "matrices" not in facts:
        return Check(name, True, f"{len(report)} matrices; nothing to compare them with")
    faults = []
    for row in facts["matrices"]:
        nonzero = math.prod(row["shape"]) - row["zeros"]
        if report.pop(row["parameter"], None) != (row["shape"], nonzero):
            faults.append(f"{row['parameter']} has {nonzero:,} nonzero values, the report says otherwise")
    faults += [f"{layer or 'a matrix without a name'} is in the report only" for layer in report]
    return make_check(name, faults, f"{len(facts['matrices'])} matrices as measured")


def _check_recorded(content: Dict[str, Any], measured: Dict[str, Any]) -> Check:
    """Check that the provenance has the measured facts that are the same on every machine."""
    recorded = content["verification"]
    names = ("onnx", "ir", "matrices", *_SPARSITIES)
    faults = [f"{name} differs from what was measured" for name in names if recorded[name] != measured[name]]
    done = {check["name"]: check["passed"] for check in recorded["checks"]}
    faults += [f"it says that {name!r} was not passed" for name, passed in done.items() if not passed]
    # Not in which words: those of another version of the kit are as good.
    kinds = [sorted((one["kind"], one["known"]) for one in of["findings"]) for of in (recorded, measured)]
    if kinds[0] != kinds[1]:
        faults.append("findings differ from those measured")
    for kind, found in measured["outputs"].items():
        if recorded["outputs"].get(kind, found)["tolerance"] != found["tolerance"]:
            faults.append(f"another tolerance of outputs ({kind})")
    optimizer, version = content["model_optimizer"], measured["ir"]["version"]
    if trees.IR_VERSIONS.get(optimizer) != version:
        faults.append(f"Model Optimizer {optimizer} does not make IR of version {version}")
    return make_check("provenance: as measured", faults, "what it says of the files is so")


def _document(checks: List[Check], signs: List[Finding], facts: Dict[str, Any]) -> Dict[str, Any]:
    """Return ``verification`` of a provenance."""
    zeros = facts["ir_zeros"]
    return {
        "checks": [dict(vars(check)) for check in checks],
        "findings": [dict(vars(finding)) for finding in signs],
        "onnx": facts["onnx"],
        "ir": facts["ir"],
        "matrices": [{**row, "ir_zeros": zeros.get(row["parameter"], 0)} for row in facts["matrices"]],
        "outputs": facts["outputs"],
        **{name: facts[name] for name in _SPARSITIES},
    }


def choose_trees(out: Path, chosen: Sequence[Variant]) -> List[Path]:
    """Return the chosen variants' trees in ``out``; if none is chosen, all trees there, the five first.

    :raises KitError: there is none, or a chosen one is not there.
    """
    names = sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
    there = [name for name in dict.fromkeys([*VARIANTS, *names]) if name in names and parse_name(name)]
    wanted = [variant.name for variant in chosen] or there
    missing = [name for name in wanted if name not in there]
    if wanted and not missing:
        return [out / name for name in wanted]
    raise KitError(
        f"There is no tree {', '.join(missing)}." if missing else "There is no tree.",
        where=f"OUT={out}",
        hint="Make it (make variant V=…, make all), or set OUT= to the folder that the trees are in.",
    )


def _lines(result: Result) -> List[str]:
    lines = [
        f"  {'ok  ' if check.passed else 'FAIL'}  {check.name:<{_LABEL}}{check.text}"
        for check in result.checks
    ]
    for finding in result.findings:
        mark = "note" if finding.known else "FAIL"
        reason = f" ({finding.reason})" if finding.reason else ""
        lines.append(f"  {mark}  {finding.kind:<{_LABEL}}{finding.text}{reason}")
    return lines + _by_layer(result.measured["matrices"] if result.measured else [])


def _by_layer(matrices: Sequence[Mapping[str, Any]]) -> List[str]:
    """Return a table of the zeros in each transformer block."""
    layers: Dict[str, List[Mapping[str, Any]]] = {}
    for row in matrices:
        if row["parameter"].startswith(BLOCK_PREFIX):
            layers.setdefault(row["parameter"][len(BLOCK_PREFIX) :].split(".")[0], []).append(row)
    lines = [("layer", "weights", "zeros in the ONNX file", "in the IR", "zero or removed")] if layers else []
    for layer, rows in layers.items():
        size, dense = sum(math.prod(row["shape"]) for row in rows), sum(row["dense"] for row in rows)
        zeros, kept = sum(row["zeros"] for row in rows), sum(row["ir_zeros"] for row in rows)
        lines.append((layer, f"{size:,}", f"{zeros:,}", f"{kept:,}", f"{1 - (size - zeros) / dense:.6f}"))
    return ["        " + line for line in align_columns(lines, range(5))]


def _summary(result: Result) -> str:
    if result.passed:
        known = f", {len(result.findings)} known findings" if result.findings else ""
        return f"verified: {len(result.checks)} checks passed{known}"
    count = len(result.failed) + len(result.unknown)
    return f"NOT AS IT MUST BE: {count} of {len(result.checks) + len(result.findings)} checks failed"


def verify_all(trees: Sequence[Path]) -> bool:
    """Verify trees one by one and print the results; return whether all passed."""
    passed = True
    for path in trees:
        with Progress(f"{path.name}", None) as progress:
            result = verify_tree(path, paths.VENV_PYTHON, progress.tick)
            progress.done(f"largest process {format_size(result.peak_bytes)}")
        print(f"{path.name}: {_summary(result)}")
        print(escape_text("\n".join(_lines(result))), flush=True)
        if not result.passed:
            print(f"  to do: {suggest_again(path)}", flush=True)
        passed = passed and result.passed
    return passed

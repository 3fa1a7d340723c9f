"""``make qdq``: the folder ``TO/<V>/`` with a tree's QDQ file, what was checked of it, and checksums."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..artifact import sums, trees
from ..artifact.provenance import read_provenance
from ..build import preflight
from ..core import files, machine, paths
from ..core.errors import KitError
from ..core.progress import Progress, format_size
from ..model import variants
from ..model.variants import Spec, Variant
from ..setup import requirements
from ..verify import checks as check_results
from ..verify.checks import Check
from ..verify.ir import AS_RUN_TOLERANCE, make_feeds, measure_difference
from ..verify.runtime import NO_ROUNDING_LEVELS
from ..verify.tree import require_published
from .convert import convert_apart
from .file_checks import SLACK, Facts
from .qdq import LEVELS, remove_rounding
from .running import NEWEST, RUNTIMES, Arrays, Runtime, require_answer, run_model

RECORD = "qdq.json"
"""What the file was made from, and what was checked and measured."""

MADE_BY = ("convert", "file_checks", "publish", "qdq", "running", "worker")
"""The modules of this room that a file, or a check of it, depends on."""

FORMAT = 1
"""The form of :data:`RECORD`."""

_MEMORY = (0.4e9, 2.2)
"""Peak bytes of the largest process: a constant, and for each byte of the tree's ONNX file.

Fitted to two trees at full size, and rounded up.
"""


_AS_FAR = 3
"""How many times as far from the IR as the IR in another OpenVINO outputs may be; measured: up to 1.1."""


def name_file(variant: Variant) -> str:
    """Return the name of a variant's QDQ file."""
    return f"{variant.stem}-qdq.onnx"


def find_places(found: Sequence[Path], to: Path) -> List[Tuple[Path, Path]]:
    """Return each tree with the folder that its QDQ file appears in.

    :raises KitError: it cannot be there, or a tree is not quantized.
    """
    places = [(tree, to / tree.name) for tree in found]
    plain = " ".join(tree.name for tree in found if not variants.find_variant(tree.name).quantized)
    if plain or not places:
        raise KitError(
            "A tree of 32 bits has no quantizers: its ONNX file has standard operators already.",
            where=f"V={plain}",
            hint="Take that file, or name trees of 8 bits.",
        )
    for tree, target in places:
        if tree in (to, *to.parents):
            raise KitError(
                "The file would be in the tree itself.", where=f"TO={to}", hint="Set TO= to another folder."
            )
        _check_target(target)
    return places


def _check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not _is_ours(target)):
        raise KitError(
            "Where the file is to be, there is something that the kit did not put there, or that was changed"
            " since.",
            where=paths.show_path(target),
            hint="Move it away, or set TO= to another folder.",
        )


def _is_ours(target: Path) -> bool:
    """Return whether a folder is an earlier result that nobody has changed."""
    try:
        entries = sums.read_sums(target)
        return RECORD in entries and not sums.find_faults(target, entries, lambda _: None)
    except (KitError, OSError):
        return False


def is_current(tree: Path, target: Path) -> bool:
    """Return whether ``target`` has the QDQ file that :func:`make_qdq` would make of ``tree``.

    :raises KitError: the tree has no checksums.
    """
    return bool(_read_key(target) == _key(sums.read_sums(tree)))


def make_qdq(tree: Path, target: Path) -> bool:
    """Make a tree's QDQ file; ``target`` appears, or is replaced, in one step, once all checks have passed.

    :return: whether there was anything to do.
    :raises KitError: the tree is not as published, a check failed, or ``target`` cannot be written.
    """
    provenance, entries = read_provenance(tree), sums.read_sums(tree)
    key = _key(entries)
    if _read_key(target) == key:
        return False
    variant = variants.find_variant(tree.name)
    onnx = tree / f"{variant.stem}.onnx"
    size = onnx.stat().st_size
    disk = 2 * (size // 4 + 2 * SLACK)  # the second without rounding, while outputs are compared
    need = preflight.Estimate(int(_MEMORY[0] + _MEMORY[1] * size), disk, 0, 0, 0)
    preflight.check_memory(f"The QDQ file of {variant.name}", need)
    machine.check_disk(f"The QDQ file of {variant.name}", target.parent, need.disk, "TO")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        trees.recover_tree(target.parent, variant)
        _check_target(target)
        with files.hold_folder(target.parent), Progress(f"{variant.name} qdq", None) as progress:
            require_published(tree, provenance, entries, progress.tick)
            _make(tree, provenance, target, key, progress)
    except OSError as error:
        raise KitError(
            f"The QDQ file cannot be made: {error.strerror or error}.",
            where=str(error.filename or paths.show_path(target)),
            hint="Free disk space, or correct the permissions.  An earlier one is untouched.",
        ) from None
    return True


def _key(entries: Dict[str, str]) -> Dict[str, Any]:
    """Return what a result depends on: the tree's files, the code, and the runtimes that it is tried in."""
    own = Path(__file__).parent
    return {
        "tree": entries,
        "kit": files.digest_files([own / f"{name}.py" for name in MADE_BY], own),
        "runtimes": {lock: requirements.digest_lock(lock) for lock in ("report.lock", *NEWEST.locks)},
    }


def _read_key(target: Path) -> Optional[Any]:
    """Return the key of a result that is there with its files' sizes; None where there is none."""
    try:
        record = trees.parse_json(files.read_bytes(target / RECORD, trees.MAX_BYTES))
        intact = record["format"] == FORMAT and trees.is_intact(target, record["files"], by_hash=False)
        return record["key"] if intact else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _make(
    tree: Path, provenance: trees.Content, target: Path, key: Dict[str, Any], progress: Progress
) -> None:
    variant = variants.find_variant(tree.name)
    staging = target.with_name(f".{variant.name}.new")
    try:
        staging.mkdir()
        made = staging / name_file(variant)
        checks, facts = convert_apart(tree / f"{variant.stem}.onnx", made, progress.tick)
        _require(checks, tree)
        spec = Spec.from_model(variant.name, provenance["model"])
        more, facts["outputs"] = check_outputs(tree / "ir" / f"{variant.stem}.xml", made, spec, progress)
        _require(more, tree)
        described = trees.describe_files(staging, [made.name])
        record = {
            "format": FORMAT,
            "variant": variant.name,
            "key": key,
            "files": described,
            "checks": [vars(check) for check in (*checks, *more)],
            "measured": facts,
            "processor": machine.read_processor(),
        }
        files.write_text(staging / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
        sums.write_sums(staging, {name: entry["sha256"] for name, entry in described.items()})
        trees.replace_tree(target, staging, target.with_name(f".{variant.name}.old"))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    progress.done(f"{format_size(facts['bytes'])}, {len(checks) + len(more)} checks passed")


def _require(checks: Sequence[Check], tree: Path) -> None:
    """:raises KitError: a check failed."""
    faults = [f"{check.name}: {check.text}" for check in checks if not check.passed]
    if faults:
        raise KitError(
            "\n".join([f"The QDQ file of {tree.name} is not what it must be, and is not kept:", *faults]),
            where=paths.show_path(tree),
            hint=f"Measure the tree itself: make verify V={tree.name}",
        )


def check_outputs(ir: Path, made: Path, spec: Spec, progress: Progress) -> Tuple[List[Check], Facts]:
    """Return the checks of a file's outputs in each runtime, and by how much they differ.

    They are compared with those of the IR at ``ir`` in the runtime that trees are verified in.  Outputs of
    some trained models depend on how each value is rounded.  Then the IR's own, too, differ from one OpenVINO
    to the other, and what is about as far away is compared without rounding.
    """
    feeds = make_feeds(spec)
    own = next(one for one in RUNTIMES[1:] if one.module == RUNTIMES[0].module)

    def run(model: Path, runtime: Runtime = RUNTIMES[0]) -> List[Arrays]:
        return require_answer(run_model(runtime, model, feeds, progress.tick), runtime, model)

    wanted = run(ir)
    errors: Dict[str, str] = {}
    apart: Dict[Runtime, float] = {}
    for runtime in RUNTIMES:
        found = run_model(runtime, made, feeds, progress.tick)
        errors[runtime.label] = found.error
        if not found.error:
            apart[runtime] = measure_difference(wanted, found.outputs)
    measured: Facts = {
        runtime.label: {"difference": difference, "tolerance": AS_RUN_TOLERANCE}
        for runtime, difference in apart.items()
    }
    if any(difference > AS_RUN_TOLERANCE for difference in apart.values()):
        most = _AS_FAR * measure_difference(wanted, run(ir, own))
        far = [runtime for runtime in apart if AS_RUN_TOLERANCE < apart[runtime] <= most]
        with tempfile.TemporaryDirectory(dir=str(made.parent)) as folder:
            wide, clipping = _remove_rounding(ir, made, Path(folder))
            wanted = run(wide)
            for runtime in far:
                found_apart = measure_difference(wanted, run(clipping, runtime))
                measured[runtime.label]["without_rounding"] = found_apart
    checks = []
    for label, error in errors.items():
        text, passed = error[: check_results.LONGEST], False
        if not error:
            facts = measured[label]
            exact = facts.get("without_rounding")
            passed = (facts["difference"] if exact is None else exact) <= AS_RUN_TOLERANCE
            text = f"{facts['difference']:.2g} of a standard deviation from the IR's"
            text += "" if exact is None else f", {exact:.2g} without rounding"
            text += f" (at most {AS_RUN_TOLERANCE})"
        checks.append(Check(f"outputs in {label}", passed, text))
    return checks, measured


def _remove_rounding(ir: Path, made: Path, folder: Path) -> Tuple[Path, Path]:
    """Write an IR and a QDQ file whose activations are clipped, and hardly or not rounded, to a folder."""
    import onnx

    wide, clipping = folder / ir.name, folder / made.name
    text = ir.read_text(encoding="utf-8")  # weights are int8 there: these are the levels of activations
    wide.write_text(text.replace(f'levels="{LEVELS}"', f'levels="{NO_ROUNDING_LEVELS}"'), encoding="utf-8")
    wide.with_suffix(".bin").symlink_to(ir.with_suffix(".bin").resolve())
    proto = onnx.load(str(made))
    remove_rounding(proto)
    clipping.write_bytes(proto.SerializeToString())
    return wide, clipping

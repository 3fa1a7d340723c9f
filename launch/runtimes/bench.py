"""``make bench``: what is measured, in which order, and what is kept of it.

A measurement is a process of its own: it loads a model, compares its outputs with the reference, and times
it.  The reference are the outputs of the tree's IR in the runtime that trees are verified in.  A machine's
speed changes, so for latency all models of a runtime are loaded, and run in turn.
"""

import contextlib
import functools
import json
import os
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..artifact import trees
from ..artifact.provenance import read_provenance
from ..build import preflight
from ..core import files, machine, paths
from ..core.errors import KitError, make_unknown_error
from ..core.progress import Progress, format_duration, format_size
from ..model.variants import BLOCK_PREFIX, Spec, Variant, find_variant
from ..setup.environment import KIT
from ..verify.ir import AS_RUN_TOLERANCE, make_feeds
from . import bench_models, publish
from .bench_figures import FORMAT, GENERATOR, PRODUCT, count_macs, count_weights
from .convert import convert_apart
from .running import BENCHED, NEWEST, RUNTIMES, Answer, Runtime, run_model

ROUNDS = 3
"""Turns of each model."""

SECONDS = 1.0
"""Default of what one measurement takes."""

SPARSE = {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": "0.5"}
"""OpenVINO stores int8 matrices with at least this share of zeros compressed; it does so on AMX alone."""

_FEW_ZEROS = 0.05
"""Share of zeros up to which a tree is not measured without them; quantization makes some."""

# For the estimate, fitted on 2 cores without VNNI, and to what the three runtimes need with it.
_START = (0.75, 0.1)  # seconds of a process, and to load a layer
_RATES = {True: 100e9, False: 37e9}  # multiplications in a second and thread, with VNNI and without
_CONVERT = (6.0, 9e-9)  # seconds to write a QDQ file, and for each byte of the tree's ONNX file
_MEMORY = (0.25e9, 2.0)  # bytes of a loaded model, and for each byte of its IR


class Settings(NamedTuple):
    """What was asked for; ``length`` is None for the exported one."""

    runtimes: Tuple[str, ...]
    threads: int
    seconds: float
    batch: int
    length: Optional[int]


def read_settings(runtimes: str, seq: str, batch: str, threads: str, seconds: str) -> Settings:
    """:raises KitError: a runtime is unknown, or a number is none or too large."""
    chosen = runtimes.replace(",", " ").split() or list(BENCHED)
    for name in chosen:
        if name not in BENCHED:
            raise make_unknown_error("runtime", name, "RUNTIMES", BENCHED)
    return Settings(
        tuple(name for name in BENCHED if name in chosen),
        int(_number("THREADS", threads, 1024) or machine.count_cores(os.sched_getaffinity(0))),
        _number("SECONDS", seconds, 3600, whole=False) or SECONDS,
        int(_number("BATCH", batch, 1024) or 1),
        int(_number("SEQ", seq, 65536)) or None,
    )


def _number(name: str, text: str, most: int, whole: bool = True) -> float:
    """Return the number in an option's ``text``, 0 if it is empty."""
    form = "[0-9]{1,5}" if whole else r"[0-9]{1,4}(\.[0-9]{1,6})?"
    if not text or (re.fullmatch(form, text, re.A) and 0 < float(text) <= most):
        return float(text or 0)
    kind = f"a whole number from 1 to {most}" if whole else f"a number of up to {most}, more than 0"
    raise KitError(f"{name} is not {kind}.", where=f"{name}={text}", hint=f"Correct {name}, or leave it out.")


class Subject(NamedTuple):
    """A tree that is measured, on sequences of ``length`` tokens.

    :param zeros: the share of them in its transformer-block matrices.
    """

    folder: Path
    variant: Variant
    spec: Spec
    length: int
    zeros: float

    @property
    def name(self) -> str:
        """The tree's name."""
        return self.folder.name

    @property
    def onnx(self) -> Path:
        """The published ONNX file."""
        return self.folder / f"{self.variant.stem}.onnx"

    @property
    def ir(self) -> Path:
        """The IR's XML."""
        return self.folder / "ir" / f"{self.variant.stem}.xml"

    @property
    def macs(self) -> int:
        """Multiplications of one sequence."""
        return count_macs(self.spec, self.length)

    @property
    def has_zeros(self) -> bool:
        """Whether it is also measured without zeros."""
        return self.variant.quantized and self.zeros > _FEW_ZEROS

    def describe(self) -> Dict[str, Any]:
        """Return the tree as the results have it."""
        return {
            "name": self.name,
            "quantized": self.variant.quantized,
            "dense": not self.variant.percent and not self.spec.pruned,
            "model": self.spec.model(),
            "kept": self.spec.kept_weights / self.spec.dense_block_weights,
            "zeros": self.zeros,
            "macs": self.macs,
            "weight_bytes": count_weights(self.spec) * (1 if self.variant.quantized else 4),
        }


def read_subject(folder: Path, length: Optional[int]) -> Subject:
    """:raises KitError: a tree cannot be read, its files are not as listed, or its model has fewer positions
    than sequences have tokens.
    """
    content = read_provenance(folder)
    if not trees.is_as_listed(folder, content):
        raise KitError(
            "The tree is not as it was published.",
            where=paths.show_path(folder),
            hint=f"Make it again (make variant V={folder.name}), or copy it again from where it came.",
        )
    spec = Spec.from_model(folder.name, content["model"])
    if (length or 0) > spec.max_positions:
        raise KitError(
            f"{folder.name} has {spec.max_positions} positions.",
            where=f"SEQ={length}",
            hint=f"Set SEQ= to {spec.max_positions} or less.",
        )
    matrices = content["verification"]["matrices"]
    zeros = sum(one["ir_zeros"] for one in matrices if one["parameter"].startswith(BLOCK_PREFIX))
    share = zeros / spec.kept_weights
    return Subject(folder, find_variant(folder.name), spec, length or spec.sequence_length, share)


@dataclass
class Cell:
    """One thing that is measured.

    :param kind: ``own``, the tree's model; ``filled``, without zeros; ``compressed``, as :data:`SPARSE` says;
        :data:`.PRODUCT`, one matrix product, of no tree.
    :param beside: the tree's own model, if that is run in turn with it.
    :param reference: outputs that it must have; none if it may have any.
    :param error: why it could not be measured.
    :param measured: what the worker has returned.
    """

    tree: str
    runtime: str
    kind: str
    mode: str
    shape: Tuple[int, ...]
    macs: float
    model: Path
    feeds: List[Dict[str, Any]]
    reference: List[Dict[str, Any]] = field(default_factory=list)
    error: str = ""
    measured: Dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is, in words."""
        words = [self.tree, self.kind.replace("own", ""), self.mode, "in", BENCHED[self.runtime].label]
        return " ".join(filter(None, words))

    def describe(self) -> Dict[str, Any]:
        """Return what was measured, as the results have it."""
        kept = ("tree", "runtime", "kind", "mode", "error", "shape", "macs", "measured")
        return {name: getattr(self, name) for name in kept}


class Turns:
    """A measurement of latency that is under way: its process runs the model whenever it is its turn.

    :param measure: measures, with a descriptor to wait at for a turn, and one to write to after it.
    """

    def __init__(self, measure: Callable[[int, int], None]) -> None:
        self._done, done = os.pipe()
        turn, self._turn = os.pipe()

        def run() -> None:
            try:
                measure(turn, done)
            finally:
                os.close(turn)
                os.close(done)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self.wait()

    def wait(self) -> None:
        """Wait until the model is loaded, its turn is over, or its process has ended."""
        os.read(self._done, 1)

    def take(self) -> None:
        """Run the model for its turn."""
        with contextlib.suppress(BrokenPipeError):  # it failed, and its answer says why
            os.write(self._turn, b".")
            self.wait()

    def end(self) -> None:
        """Tell the process that there are no more turns, and wait for its answer."""
        os.close(self._turn)
        self._thread.join()
        os.close(self._done)


class Bench:
    """The measurements of some trees; the models that are made for them are in ``scratch``."""

    def __init__(self, subjects: Sequence[Subject], settings: Settings, scratch: Path) -> None:
        self.subjects = subjects
        self.settings = settings
        self._scratch = scratch
        self.cells: List[Cell] = []
        # Where the tree of its own is measured without zeros: the newest OpenVINO chosen, if there is one.
        self._filled_in = next(
            (name for name in ("openvino", "openvino-2022.1") if name in settings.runtimes), ""
        )
        self._published = {
            one.name: publish.is_current(one.folder, paths.QDQ / one.name)
            for one in subjects
            if one.variant.quantized and "onnxruntime" in settings.runtimes
        }

    def estimate(self) -> Tuple[float, float]:
        """Return about how many seconds the models and references take, and then the measurements."""
        settings, vnni = self.settings, any("vnni" in name for name in machine.read_instructions())
        prepare = measure = 0.0
        for one in self.subjects:
            run = one.macs / _RATES[vnni] / settings.threads
            size = one.onnx.stat().st_size
            start = _START[0] + _START[1] * one.spec.layers
            prepare += (
                start + run + (_CONVERT[0] + _CONVERT[1] * size) * (not self._published.get(one.name, True))
            )
            latency = start + run + ROUNDS * run + max(settings.seconds, ROUNDS * run)
            throughput = start + 2 * run * settings.batch + max(settings.seconds, 2 * run * settings.batch)
            measure += latency * (len(settings.runtimes) + (one.has_zeros and bool(self._filled_in)))
            measure += throughput * len(settings.runtimes)
        products = len(bench_models.PRODUCTS) * len(settings.runtimes)
        return prepare, measure + products * (_START[0] + settings.seconds)

    def check_memory(self) -> None:
        """:raises KitError: the models that are loaded at the same time do not fit into memory."""
        copies = [1 + (one.has_zeros and bool(self._filled_in)) for one in self.subjects]
        sizes = [one.ir.with_suffix(".bin").stat().st_size for one in self.subjects]
        need = sum(count * (_MEMORY[0] + _MEMORY[1] * size) for count, size in zip(copies, sizes))
        free = preflight.read_available_memory()
        if free is not None and free < need and not os.environ.get(preflight.IGNORE_MEMORY):
            raise KitError(
                f"The models need about {format_size(need)} of memory at once; {format_size(free)} are free.",
                where="memory of this machine",
                hint="Close other programs, or name fewer trees (V=).\n"
                f"{preflight.IGNORE_MEMORY}=1 tries all the same.",
            )

    def prepare(self, expected: float) -> None:
        """Make the models and references, and with them the cells."""
        with Progress("bench  models and references", expected) as progress:
            for subject in self.subjects:
                onnx, error = self._find_onnx(subject, progress)
                self._add_tree(subject, onnx, error, progress)
            self._add_products()
            progress.done(f"{len(self.cells)} to measure")

    def _find_onnx(self, subject: Subject, progress: Progress) -> Tuple[Path, str]:
        """Return the file that ONNX Runtime reads, or why there is none."""
        if subject.name not in self._published:
            return subject.onnx, ""
        name = publish.name_file(subject.variant)
        if self._published[subject.name]:
            return paths.QDQ / subject.name / name, ""
        made = self._scratch / name
        try:
            checks, _ = convert_apart(
                subject.onnx, made, lambda step: progress.tick(f"{name}: {step or '…'}")
            )
        except KitError as error:
            return made, error.what
        return made, "; ".join(f"{check.name}: {check.text}" for check in checks if not check.passed)

    def _add_tree(self, subject: Subject, onnx: Path, error: str, progress: Progress) -> None:
        """Add what is measured of a tree; its inputs are the last of verification's, as often as a batch has.

        :param error: why there is no file ``onnx``.
        """
        progress.tick(f"the reference of {subject.name}")
        spec = Spec.from_model(subject.name, {**subject.spec.model(), "sequence_length": subject.length})
        feeds = make_feeds(spec)[-1:]
        wanted = _try(progress, RUNTIMES[0], subject.ir, feeds, shape=(1, subject.length))
        failed = wanted.error and f"there is no reference: {wanted.error}"

        def add(runtime: str, kind: str, model: Path, mode: str = "latency", batch: int = 1) -> None:
            shape, macs = (batch, subject.length), batch * subject.macs
            given, reference = (_repeat(runs, batch) for runs in (feeds, wanted.outputs))
            cell = Cell(subject.name, runtime, kind, mode, shape, macs, model, given)
            cell.reference = [] if kind == "filled" else reference
            cell.error = failed or (error if model is onnx else "")
            self.cells.append(cell)

        for mode, batch in (("latency", 1), ("throughput", self.settings.batch)):
            for runtime in self.settings.runtimes:
                model = subject.ir
                if BENCHED[runtime].module == "onnxruntime":
                    model = onnx
                    if (batch, subject.length) != (1, subject.spec.sequence_length) and not error:
                        model = self._scratch / f"{subject.name}-{batch}x{subject.length}.onnx"
                        bench_models.reshape_onnx(onnx, model, (batch, subject.length))
                add(runtime, "own", model, mode, batch)
        if self._filled_in and subject.has_zeros:
            progress.tick(f"{subject.name} without zeros")
            add(self._filled_in, "filled", bench_models.fill_zeros(subject.ir, self._scratch / subject.name))
            if self._filled_in == "openvino" and "amx_int8" in machine.read_instructions():
                add(self._filled_in, "compressed", subject.ir)

    def _add_products(self) -> None:
        import numpy

        for rows, inner, columns in bench_models.PRODUCTS:
            target = self._scratch / f"{rows}x{inner}x{columns}.onnx"
            model = bench_models.write_product(target, (rows, inner, columns))
            values = numpy.random.RandomState(0).rand(rows, inner) * 2 - 1
            feeds = [{bench_models.PRODUCT_INPUT: values.astype("f4")}]
            for runtime in self.settings.runtimes:
                macs = rows * inner * columns
                self.cells.append(Cell("", runtime, PRODUCT, "latency", (rows, inner), macs, model, feeds))

    def measure(self, expected: float) -> None:
        """Measure each cell that has no error."""
        with Progress("bench", expected) as progress:
            for runtime in self.settings.runtimes:
                cells = [cell for cell in self.cells if cell.runtime == runtime and not cell.error]
                self._take_turns([cell for cell in cells if cell.mode == "latency"], progress)
                for cell in cells:
                    if cell.mode == "throughput":
                        progress.tick(cell.label)
                        self._measure(cell, progress)
            progress.done(f"{sum(not cell.error for cell in self.cells)} measurements")

    def _take_turns(self, cells: Sequence[Cell], progress: Progress) -> None:
        """Measure latency: each round begins with another model."""
        with contextlib.ExitStack() as stack:
            models = []
            for cell in cells:
                progress.tick(f"loading {cell.label}")
                model = Turns(functools.partial(self._measure, cell, progress))
                stack.callback(model.end)
                models.append((cell, model))
            for number in range(ROUNDS):
                start = number * len(models) // ROUNDS
                for cell, model in (*models[start:], *models[:start]):
                    progress.tick(f"turn {number + 1} of {ROUNDS}: {cell.label}")
                    model.take()

    def _measure(self, cell: Cell, progress: Progress, *turns: int) -> None:
        timing = {
            "mode": cell.mode,
            "seconds": self.settings.seconds / (ROUNDS if turns else 1),
            "settings": SPARSE if cell.kind == "compressed" else {},
            "tolerance": AS_RUN_TOLERANCE,
            "turns": turns,
        }
        found = _try(
            progress,
            BENCHED[cell.runtime],
            cell.model,
            cell.feeds,
            threads=self.settings.threads,
            shape=cell.shape if cell.tree else (),
            timing=timing,
            reference=cell.reference,
            inherit=turns,
        )
        cell.error, cell.measured = found.error, found.measured
        if found.error:
            cell.measured = {}
            progress.note(f"FAILED: {cell.label}: {found.error}")


def _repeat(runs: Sequence[Dict[str, Any]], count: int) -> List[Dict[str, Any]]:
    """Return inputs or outputs of one sequence for a batch of it."""
    return [{name: values.repeat(count, 0) for name, values in one.items()} for one in runs]


def _try(
    progress: Progress, runtime: Runtime, model: Path, feeds: Sequence[Dict[str, Any]], **options: Any
) -> Answer:
    """Run a model; a process that failed is an answer with an error, too."""
    try:
        return run_model(runtime, model, feeds, lambda _: progress.tick(progress.step), **options)
    except KitError as error:
        return Answer([], " ".join(error.what.split()), {})


def measure_trees(folders: Sequence[Path], settings: Settings) -> Dict[str, Any]:
    """Measure trees and return the results, of the form that ``bench_schema.json`` describes.

    :raises KitError: a tree is not as published, or has too few positions.
    """
    before = os.getloadavg()
    subjects = [read_subject(folder, settings.length) for folder in folders]
    if any(BENCHED[name].environment is NEWEST for name in settings.runtimes):
        NEWEST.ensure()
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=str(paths.BUILD)) as scratch:
        bench = Bench(subjects, settings, Path(scratch))
        bench.check_memory()
        prepare, measure = bench.estimate()
        print(
            f"bench  takes about {format_duration(prepare + measure)}, {format_duration(prepare)} of it for"
            " models and references; leave the machine alone meanwhile",
            file=sys.stderr,
            flush=True,
        )
        bench.prepare(prepare)
        bench.measure(measure)
    instructions = machine.read_instructions()
    return {
        "generator": GENERATOR,
        "format": FORMAT,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": {**machine.describe_host(str(KIT.python)), "instructions": instructions},
        "load": {"before": list(before), "after": list(os.getloadavg())},
        "settings": {
            "threads": settings.threads,
            "seconds": settings.seconds,
            "batch": settings.batch,
            "length": settings.length,
            "rounds": ROUNDS,
            "tolerance": AS_RUN_TOLERANCE,
        },
        # Each has int8 kernels for all of these: oneDNN in OpenVINO, MLAS in ONNX Runtime.
        "runtimes": {
            name: {"label": BENCHED[name].label, "may_use": instructions} for name in settings.runtimes
        },
        "trees": [subject.describe() for subject in subjects],
        "cells": [cell.describe() for cell in bench.cells],
    }


FOLDER = "bench"
"""Of the results, beside the trees."""

NAMES = ("bench.json", "latency.svg", "runtimes.svg")
"""The files of a result."""


def check_target(to: Path, folders: Sequence[Path]) -> None:
    """:raises KitError: the results cannot be in ``to``."""
    if any(tree.resolve() in (to, *to.parents) for tree in folders):
        what = "The results would be in a tree, whose files are listed and checked."
        raise KitError(what, where=f"TO={to}", hint="Set TO= to a folder elsewhere.")
    if os.path.lexists(str(to)) and not to.is_dir():
        raise KitError("TO is not a folder.", where=f"TO={to}", hint="Set TO= to a folder, new or not.")
    for path in (to / name for name in NAMES):
        if os.path.lexists(str(path)) and not _is_ours(path):
            raise KitError(
                "Where the results are to be, there is something that is no earlier result.",
                where=paths.show_path(path),
                hint="Move it away, or set TO= to another folder.",
            )


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return GENERATOR.encode() in handle.read(4096)
    except OSError:
        return False


def write_results(to: Path, content: Dict[str, Any], figures: Dict[str, str]) -> None:
    """Write the results and the figures, by file name, to a folder; earlier ones do not stay."""
    for path in (to / name for name in NAMES):
        if path.exists():
            path.unlink()
    for name, text in {NAMES[0]: json.dumps(content, indent=1) + "\n", **figures}.items():
        files.write_text(to / name, text)

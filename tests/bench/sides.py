"""The two sides of the benchmark: what each runs on, and a variant's job on it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Tuple

from launch.build import jobs, rules, upstream
from launch.build.jobs import TreeJob
from launch.core import paths
from launch.core.errors import KitError
from launch.model.variants import Variant
from launch.qa.arguments import parse_arguments
from launch.sources import patches
from launch.sources.source import Fork, Registry, Source

FOLDER = paths.BUILD / "bench"
"""Everything of the benchmark."""

WORK = FOLDER / "work"
"""What a run reads and makes; empty before and removed afterwards."""

MODEL = WORK / "model"
"""The dense model's folder, for both sides."""

_BY_HAND = ("sparsify_params.patch", "squad_metric.patch")
"""The recipe's own change to NNCF, and what takes the fetched metric out, which nothing runs with."""

_SMALL_BY_HAND = "dense_size.patch"
"""Upstream's script has BERT-large's size written in, and cannot make another model's hybrids."""


class Hand(Fork):
    """The forks at their pins, with no more patches than it takes to run them: the recipe by hand.

    :param small: for a model that is no BERT-large.
    """

    def __init__(self, small: bool) -> None:
        super().__init__(fast=False)
        self._wanted = (*_BY_HAND, _SMALL_BY_HAND) if small else _BY_HAND

    @property
    def tree(self) -> Path:
        """A tree of its own beside the kit's."""
        return FOLDER / "src" / "hand"

    @property
    def extensions(self) -> Path:
        """Compiled from its own tree."""
        return FOLDER / "torch_extensions" / "hand"

    def series(self) -> Dict[str, List[patches.Patch]]:
        """Return the few patches.

        :raises KitError: one of them is in no series, or a series or patch is at fault.
        """
        found = {
            package: [patch for patch in series if patch.path.name in self._wanted]
            for package, series in super().series().items()
        }
        there = {patch.path.name for series in found.values() for patch in series}
        missing = sorted(set(self._wanted) - there)
        if missing:
            raise KitError(
                f"The recipe by hand needs a patch that is in no series: {', '.join(missing)}.",
                where=paths.show_path(paths.PATCHES),
                hint="Restore it, or bring tests/bench/sides.py up to date with what took its place.",
            )
        return found

    def describe(self) -> str:
        """Return the source in one line."""
        names = [patch.path.name for found in self.series().values() for patch in found]
        pins = ", ".join(f"{package} {commit[:12]}" for package, commit in self.packages().items())
        return f"by hand ({pins}; {', '.join(names)})"


class Plain(Registry):
    """The releases without the optional set ``fast``, in a tree of its own."""

    def __init__(self) -> None:
        super().__init__(fast=False)

    @property
    def tree(self) -> Path:
        """A tree of its own beside the kit's."""
        return FOLDER / "src" / "plain"

    @property
    def extensions(self) -> Path:
        """Compiled from its own tree."""
        return FOLDER / "torch_extensions" / "plain"


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    :param name: what the table calls it.
    :param launch: the launch file, or ``upstream``.
    :param kits: whether it runs the kit's own steps around the program, and verifies what it made.
    """

    name: str
    source: Source
    launch: str
    kits: bool

    @property
    def folder(self) -> Path:
        """What it makes goes here."""
        return WORK / self.name.replace("=", "-")


def pair(source: Source, small: bool) -> Tuple[Side, Side]:
    """Return what is compared where the kit runs on ``source``.

    On the forks that is upstream's recipe by hand and the kit on upstream's own launch file; on the releases
    the kit's own program without and with the set ``fast``.
    """
    if isinstance(source, Fork):
        launch = upstream.UPSTREAM
        return Side("hand", Hand(small), launch, False), Side("kit", source, launch, True)
    launch = str(paths.LAUNCH_FILE)
    return Side("FAST=0", Plain(), launch, False), Side("FAST=1", source, launch, True)


def job(side: Side, variant: Variant) -> TreeJob:
    """Return the job that makes a variant on a side, on the benchmark's model and the sample's questions.

    :raises KitError: the launch file or an input is at fault.
    """
    questions = paths.SAMPLE / "train.json", paths.SAMPLE / "validation.json"
    selection = rules.Selection("files", MODEL, *questions)
    found = jobs.load_job(side.launch, variant.name, selection, side.source)
    before = found.arguments.output_dir
    after = str(side.folder if variant.hybrid else side.folder / variant.name)
    if not Path(before).is_absolute():
        raise _misplaced(side, variant, before)
    args = [word.replace(before, after) for word in found.invocation.args]
    env = dict(found.invocation.env)
    env["PYTHONPATH"] = os.pathsep.join(map(str, side.source.python_path))
    env["TORCH_EXTENSIONS_DIR"] = str(side.source.extensions)
    env["HF_HOME"] = str(side.folder.with_name(side.folder.name + "-cache"))
    invocation = replace(found.invocation, args=tuple(args), env=env)
    arguments = parse_arguments(Path(invocation.target[-1]).name, invocation.args)
    made = TreeJob(**{**vars(found), "invocation": invocation, "arguments": arguments})
    if made.onnx_path != side.folder / variant.name / f"{variant.stem}.onnx":
        raise _misplaced(side, variant, str(made.onnx_path))
    return made


def _misplaced(side: Side, variant: Variant, place: str) -> KitError:
    return KitError(
        "The benchmark cannot move what this configuration makes to its own folder.",
        where=f"{side.launch}: {variant.name}: {place}",
        hint="Give --output_dir and --to_onnx absolute paths in the launch file, below ${workspaceFolder}.",
    )

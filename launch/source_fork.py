"""Source ``fork``: upstream's own code at the pinned commits, from the submodules, patched."""

import shutil
from pathlib import Path
from typing import Dict, Iterator, List

from . import patches, paths, third_party
from .source import Source

_PARTS = {"nncf": ["nncf"], "transformers": ["src/transformers", "examples/pytorch/question-answering"]}
"""What of each repository a run reads; all of one that is not named."""

EXAMPLES = "transformers/examples/pytorch/question-answering"
"""Upstream's scripts below the derived tree: its layout is that of the folder upstream's author worked in."""


class Fork(Source):
    """The submodules at their pins; upstream's own scripts run on them."""

    name = "fork"

    @property
    def python_path(self) -> List[Path]:
        """Both packages, the scripts' folder, and the kit, whose metric the scripts compute.

        ``gen_hybrid_sparse_qa.py`` is a link into a folder below; Python takes the link's target's folder for
        the script's own and would not find the modules beside the link.
        """
        return [self.tree / "nncf", self.tree / "transformers" / "src", self.programs, paths.REPOSITORY]

    @property
    def programs(self) -> Path:
        """Upstream's question-answering examples."""
        return self.tree / EXAMPLES

    def packages(self) -> Dict[str, str]:
        """Return the commit of each fork."""
        return {fork.name: fork.base for fork in third_party.forks()}

    def _identity(self, series: Dict[str, List[patches.Patch]]) -> Iterator[str]:
        for name, commit in self.packages().items():
            yield f"{name} {commit} {_PARTS.get(name)}\n"
            yield from (patch.diff for patch in series[name])

    def _fill(self, staging: Path) -> None:
        third_party.require()
        series = self.series()
        for fork in third_party.forks():
            scratch = staging / ".git-scratch"  # goes with the staging folder, should this be killed
            tree = patches.Tree(fork.folder, scratch)
            tree.read(fork.base)
            for patch in series[fork.name]:
                tree.apply(patch.path)
            tree.write(staging / fork.name, _PARTS.get(fork.name))
            shutil.rmtree(scratch)

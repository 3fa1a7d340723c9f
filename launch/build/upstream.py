"""Upstream's launch file (``LAUNCH=upstream``), rewritten to run here.

It was written for its author's machine, with one configuration for four variants.  A rule that finds nothing
to change there is an error: the file is another one then.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import List

from ..core import paths
from ..core.errors import KitError
from ..model.variants import VARIANTS, Variant, parse_name
from ..sources import third_party
from ..sources.source import Source
from ..vscode.invocation import Rewriter
from ..vscode.launch_file import find_configuration, parse_launch_file, read_launch_file
from ..vscode.resolve import Variables, resolve_configuration
from . import rules

UPSTREAM = "upstream"  # LAUNCH=upstream

_FOLDER = "examples/pytorch/question-answering"
_FILE = f"{_FOLDER}/gen-hybrid-sparse/vscode-launch.json"

CONFIGS, HYBRID, UNSTRUCTURED, EVALUATE = (
    "generate hybrid sparse config",
    "generate hybrid sparse + quantized model, onnx",
    "generate unstructured sparse + quantized model, onnx",
    "Eval squad",
)
"""The four configurations of upstream's file."""

_OUTPUT = {
    "/tmp/vscode-runs/memalign_tx/gen_hybrid_sparse": "work",
    "/tmp/vscode-runs/memalign_tx/squad-eval": "evaluate",
}
"""The author's output folders, and what stands for them below the build folder."""

_DEVICES = Path("/dev")

_WORKSPACE = "/-workspaceFolder-"
"""Stands for ``${workspaceFolder}`` until a rule says where that is; no real path begins like this."""

_SELECTED = "(the interpreter selected in VS Code)"
_INACTIVE = "(commented out) "
_COMMENTED = re.compile(r'^([ \t]*)//[ \t]*"((?:[^"\\\n]|\\.)*)"[ \t]*,?[ \t]*$', re.M)
"""A line that holds one string and nothing else, commented out: a choice that the file offers."""

_ABSOLUTE = re.compile(r"(^|=)[/~]")
"""A word that is an absolute path, or an option or a variable that has one for its value."""


def find_upstream_file() -> Path:
    """:raises KitError: the submodule with upstream's launch file is not checked out as pinned."""
    fork = third_party.find_fork("transformers")
    path = fork.folder / _FILE
    if third_party.is_checked_out(fork):
        third_party.check_pin(fork)
        if path.is_file():
            return path
    raise KitError(
        "LAUNCH=upstream reads the launch file of the transformers fork, and that is not checked out.",
        where=f"{fork.submodule}/{_FILE}",
        hint="Fetch it: make third_party  (MIRROR=<folder> without a route to it)",
    )


def name_upstream(job: str) -> str:
    """Return the name in upstream's file of a job's configuration; a KitError where there is none."""
    names, variant = {"configs": CONFIGS, "evaluate": EVALUATE}, parse_name(job)
    if variant is not None:
        return HYBRID if variant.hybrid else UNSTRUCTURED
    if job in names:
        return names[job]
    raise KitError(
        f"Upstream's launch file has no configuration for {job!r}." if job else "No configuration was named.",
        where="V=" + job,
        hint="Set V to one of:\n  " + "\n  ".join([*VARIANTS, *names]),
    )


def name_entry(rewriter: Rewriter) -> str:
    """Return the variant that a configuration of upstream's file makes, as it is written; empty for none."""
    option = "--config_name" if rewriter.has("--config_name") else "--to_onnx"
    return Path(rewriter.value(option) or "").parent.name


def rewrite_upstream(job: str, source: Source) -> Rewriter:
    """Return the invocation of a job in upstream's file, rewritten to run here on ``source``.

    :raises KitError: the file is missing or broken, or not the one that the rules were made for.
    """
    path = find_upstream_file()
    configuration = find_configuration(read_launch_file(path), name_upstream(job))
    resolved = resolve_configuration(Variables(configuration, Path(_WORKSPACE), os.environ), _SELECTED)
    rewriter = Rewriter(resolved)
    rewriter.cwd.before = (str(configuration.body.get("cwd")),)  # as written, a slash at its end too
    upstream = _Upstream(rewriter, job, path, source)
    upstream.workspace()
    upstream.interpreter()
    rules.select_source(rewriter, source)
    upstream.device()
    upstream.output()
    if job == "evaluate":
        upstream.authors_model()
    variant = parse_name(job)
    if variant is not None and variant.hybrid:
        upstream.variant(variant)
    upstream.program()
    upstream.authors_paths()
    return rewriter


@dataclass
class _Upstream:
    """The rules for upstream's launch file."""

    rewriter: Rewriter
    job: str
    path: Path
    source: Source

    def require(self, matches: bool, rule: str, found: str) -> None:
        """Raise a KitError where a rule finds nothing to change."""
        if matches:
            return
        raise KitError(
            f"Upstream's launch file has changed: the rule '{rule}' no longer matches it.",
            where=f"{paths.show_path(self.path)}: {name_upstream(self.job)}: "
            + found.replace(_WORKSPACE, "${workspaceFolder}"),
            hint="Bring the rules in launch/build/upstream.py up to date with it, or the pin back to the"
            " commit that they were made for.",
        )

    def workspace(self) -> None:
        """Upstream's author had VS Code open in a folder with both repositories."""
        forked = rules.is_upstreams(self.source)
        rule = "workspace folder: " + ("the patched sources" if forked else "the submodules")
        folder = str(self.source.tree if forked else paths.REPOSITORY / "third_party")
        found = self.rewriter.cwd.after[0]
        self.require(found == f"{_WORKSPACE}/transformers/{_FOLDER}", "workspace folder", f"cwd = {found}")
        self.rewriter.cwd.change((found.replace(_WORKSPACE, folder),), rule)
        self.rewriter.map_words(lambda word: word.replace(_WORKSPACE, folder), rule)
        for part in self.rewriter.parts():
            part.before = tuple(word.replace(_WORKSPACE, "${workspaceFolder}") for word in part.before)

    def interpreter(self) -> None:
        """The file leaves the interpreter to VS Code."""
        found = self.rewriter.python.after
        self.require(found == (_SELECTED,), "interpreter", f"python = {' '.join(found)}")
        self.rewriter.python.before = ()
        self.rewriter.set_python(str(paths.VENV_PYTHON), rules.PYTHON)

    def device(self) -> None:
        """The author computed on the second GPU."""
        name = "CUDA_VISIBLE_DEVICES"
        found = self.rewriter.variable(name)
        self.require((found or "").isdigit(), "CUDA device", f"env.{name} = {found}")
        if not (_DEVICES / f"nvidia{found}").exists():
            self.rewriter.set_variable(name, "", f"CUDA device: there is no device {found} here")

    def output(self) -> None:
        """The author's folders below ``/tmp`` are not where the kit builds."""
        found = self.rewriter.value("--output_dir") or ""
        home = next((folder for folder in _OUTPUT if _is_below(found, folder)), "")
        self.require(home != "", "output folder", f"--output_dir {found}")
        # In the file the trees' folder is that of the configs, too.
        here = paths.BUILD / ("configs/upstream" if self.job == "configs" else _OUTPUT[home])
        for option in ("--output_dir", "--to_onnx"):
            value = self.rewriter.value(option)
            if value is not None and _is_below(value, home):
                self.rewriter.set(option, str(here) + value[len(home) :], "output folder: the kit's")

    def authors_model(self) -> None:
        """The evaluation names a checkpoint on the author's disk, which is the hub's of the same name."""
        option, rule = "--model_name_or_path", "author's checkpoint"
        found, offered = self.rewriter.value(option) or "", self.offered(option)
        name = Path(found).name
        matches = Path(found).is_absolute() and name in offered
        self.require(matches, rule, f"{option} {found}, offered: {', '.join(offered)}")
        self.rewriter.set(option, name, f"{rule}: the name that is commented out there")

    def variant(self, variant: Variant) -> None:
        """One configuration stands for the four hybrids: one is the active line, the others comments."""
        offered = self.offered("--config_name")
        names = [Path(choice).parent.name for choice in offered]
        fitting = [choice for choice, name in zip(offered, names) if name == variant.base]
        found = f"--config_name offers {', '.join(offered) or 'nothing'}"
        known = variant.base in VARIANTS
        self.require(len(fitting) == 1 if known else bool(names and parse_name(names[0])), "variant", found)
        if not known:
            return  # the active one stands: rules.make_variant
        rule = "variant: the line that is commented out for it in the file"
        self.rewriter.set("--config_name", fitting[0], rule)

    def program(self) -> None:
        target = self.rewriter.target.after
        matches = len(target) == 1 and target[0] in rules.PROGRAMS
        self.require(matches, "program", f"program = {' '.join(target)}")
        if not rules.is_upstreams(self.source):
            rule = "SOURCE=registry: the kit's program, same command line"
            rules.set_program(self.rewriter, self.source, rule)
        elif self.job == "configs":
            rules.write_elsewhere(self.rewriter, self.source)

    def authors_paths(self) -> None:
        """An absolute path that no rule has changed is one of the author's machine."""
        for part in self.rewriter.parts():
            for word in part.after:
                authors = word in part.before and _ABSOLUTE.search(word) is not None
                self.require(not authors, "author's paths", f"{part.what} {' '.join(part.before)}")

    def offered(self, option: str) -> List[str]:
        """Return the values that the file offers for ``option``: the active one and those commented out."""
        text = self.path.read_text(encoding="utf-8-sig")
        try:
            marked = parse_launch_file(_COMMENTED.sub(rf'\1"{_INACTIVE}\2",', text), str(self.path))
        except KitError:
            return []  # comments that stand where no value may: the caller's rule does not match
        words = find_configuration(marked, name_upstream(self.job)).body.get("args")
        if not isinstance(words, list) or option not in words:
            return []
        values: List[str] = []
        for word in map(str, words[words.index(option) + 1 :]):
            value = word[len(_INACTIVE) :] if word.startswith(_INACTIVE) else word
            if value.startswith("--"):
                break
            values.append(value)
        return values


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")

"""The rules that turn a launch file's invocation into the one that runs, but those of the inputs.

Upstream's file (``LAUNCH=upstream``) was written for its author's machine, with one configuration for four
variants.  A rule that finds nothing to change there is an error: the file is another one then.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional

from ..core import hidden, machine, paths
from ..core.errors import KitError
from ..model.variants import VARIANTS, Variant
from ..sources import third_party
from ..sources.source import Fork, Registry, Source
from ..vscode.invocation import Rewriter
from ..vscode.launch_file import find_configuration, parse_launch_file, read_launch_file
from ..vscode.resolve import Variables, resolve_configuration

ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1048576"
"""glibc's allocator ("Memory Allocation Tunables" in its manual): a megabyte and more is mapped by itself.

By default the heap keeps freed tensors of up to 32 MB and grows by 0.7 GB with each calibration batch of the
unstructured variant.  ``hugetlb=1`` (from glibc 2.35 on) makes pages 2 MB large: fewer page faults.
"""

PROGRAMS = ("gen_hybrid_sparse_qa.py", "run_qa.py")  # the kit's and upstream's have the same names

_PYTHON = "interpreter: the kit's environment"

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


# --- what any run gets -----------------------------------------------------------------------------------


def select_source(rewriter: Rewriter, source: Source) -> None:
    """Let an invocation run on ``source``: its packages and the tools that it calls."""
    name = f"SOURCE={source.name}"
    own = os.pathsep.join(map(str, source.python_path))
    rewriter.set_variable("PYTHONPATH", own, f"{name}: selects nncf, transformers and the script's modules")
    tools = str(paths.VENV / "bin")
    search = rewriter.variable("PATH")
    search = search or hidden.hide_variable("PATH", os.environ.get("PATH", "")) or os.defpath
    if tools not in search.split(os.pathsep):
        search = hidden.join_words(os.pathsep, [tools, search])
    rewriter.set_variable("PATH", search, "ninja compiles NNCF's functions for a GPU")
    rewriter.set_variable("TORCH_EXTENSIONS_DIR", str(source.extensions), f"{name}: its functions for a GPU")
    rewriter.set_variable("PYTHONHASHSEED", "0", "same order in every run")
    allocator = rewriter.variable("GLIBC_TUNABLES")
    if source.fast and allocator is None:
        rewriter.set_variable("GLIBC_TUNABLES", ALLOCATOR, "freed tensors leave the process at once")
    elif not source.fast and allocator == ALLOCATOR:
        rewriter.drop_variable("GLIBC_TUNABLES", "FAST=0: the allocator as it is")


def set_threads(rewriter: Rewriter, threads: Optional[int], environ: Mapping[str, str]) -> None:
    """Set the threads (None: as many as torch would take); drop the shell's variables that change results."""
    if not rewriter.has("--gen_sparse_cfg"):  # which computes nothing
        rule = "THREADS" if threads else "as many threads as torch would take; THREADS= sets another number"
        wanted = threads or machine.count_torch_threads(rewriter.result().environment(environ))
        for name in machine.THREADS:
            rewriter.set_variable(name, str(wanted), rule)
        if wanted > machine.count_cores():
            # Only then: with it, MKL does not choose fewer for a small product either.
            rewriter.set_variable("MKL_DYNAMIC", "FALSE", "more threads than there are cores")
    for name in sorted(environ):
        if name.startswith(machine.NOT_INHERITED) and name not in rewriter.env:
            rewriter.set_variable(name, None, "not from the shell: it changes what is computed, or how")


# --- which program ---------------------------------------------------------------------------------------


def is_upstreams(source: Source) -> bool:
    """Return whether the programs of ``source`` are upstream's own scripts."""
    return source.name == Fork.name


def runs_the_kits(rewriter: Rewriter) -> bool:
    """Return whether an invocation runs one of the kit's own programs, by whatever path."""
    target = rewriter.target.after
    program = Path(os.path.normpath(Path(rewriter.cwd.after[0], target[-1])))
    return len(target) == 1 and program.parent == Registry().programs and program.name in PROGRAMS


def move_to_source(rewriter: Rewriter, source: Source, where: str) -> None:
    """Let a configuration that was written for the releases run on ``source``.

    :param where: the place of the program in the launch file, for the error.
    :raises KitError: the program is not the kit's.
    """
    if not is_upstreams(source):
        return
    rule = f"SOURCE={source.name}: upstream's own script"
    if not runs_the_kits(rewriter):
        raise KitError(
            f"SOURCE={source.name} runs upstream's scripts in place of the kit's program, and this"
            " configuration runs neither.",
            where=where,
            hint="Run it with SOURCE=registry, or set its program to one of launch/qa/.",
        )
    _set_program(rewriter, source, rule)
    rewriter.set_python(str(paths.VENV_PYTHON), _PYTHON)
    select_source(rewriter, source)
    if rewriter.has("--gen_sparse_cfg"):
        _write_elsewhere(rewriter, source)
        # Upstream's script tokenizes questions before it writes configs.
        rule = f"SOURCE={source.name}: upstream's script wants questions first"
        for option, name in (("--train_file", "train.json"), ("--validation_file", "validation.json")):
            if not rewriter.has(option):
                rewriter.set(option, str(paths.SAMPLE / name), rule)
        rewriter.flag("--do_eval", rule)


def _set_program(rewriter: Rewriter, source: Source, rule: str) -> None:
    rewriter.target.change((str(source.programs / Path(rewriter.target.after[-1]).name),), rule)


def _write_elsewhere(rewriter: Rewriter, source: Source) -> None:
    """Run upstream's generator of configs below ``build/``: it writes below its working folder."""
    rule = "writes below its working folder: not into the sources"
    _set_program(rewriter, source, rule)
    folder = paths.BUILD / "configs" / source.name
    folder.mkdir(parents=True, exist_ok=True)  # so that the printed command can be pasted, too
    rewriter.cwd.change((str(folder),), rule)


# --- upstream's launch file ------------------------------------------------------------------------------


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
    names = {"configs": CONFIGS, "evaluate": EVALUATE}
    names.update((name, HYBRID if variant.hybrid else UNSTRUCTURED) for name, variant in VARIANTS.items())
    if job in names:
        return names[job]
    raise KitError(
        f"Upstream's launch file has no configuration for {job!r}." if job else "No configuration was named.",
        where="V=" + job,
        hint="Set V to one of:\n  " + "\n  ".join(names),
    )


def rewrite_upstream(job: str, source: Source) -> Rewriter:
    """Return the invocation of a job in upstream's file, rewritten to run here on ``source``.

    :raises KitError: the file is missing or broken, or not the one that the rules were made for.
    """
    path = find_upstream_file()
    configuration = find_configuration(read_launch_file(path), name_upstream(job))
    resolved = resolve_configuration(Variables(configuration, Path(_WORKSPACE), os.environ), _SELECTED)
    rewriter = Rewriter(resolved)
    rewriter.cwd.before = (str(configuration.body.get("cwd")),)  # as written, a slash at its end too
    rules = _Upstream(rewriter, job, path, source)
    rules.workspace()
    rules.interpreter()
    select_source(rewriter, source)
    rules.device()
    rules.output()
    if job == "evaluate":
        rules.authors_model()
    if job in VARIANTS and VARIANTS[job].hybrid:
        rules.variant(VARIANTS[job])
    rules.program()
    rules.authors_paths()
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
            hint="Bring the rules in launch/build/rules.py up to date with it, or the pin back to the commit"
            " that they were made for.",
        )

    def workspace(self) -> None:
        """Upstream's author had VS Code open in a folder with both repositories."""
        forked = is_upstreams(self.source)
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
        self.rewriter.set_python(str(paths.VENV_PYTHON), _PYTHON)

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
        fitting = [choice for choice in offered if Path(choice).parent.name == variant.name]
        found = f"--config_name offers {', '.join(offered) or 'nothing'}"
        self.require(len(fitting) == 1, "variant", found)
        rule = "variant: the line that is commented out for it in the file"
        self.rewriter.set("--config_name", fitting[0], rule)

    def program(self) -> None:
        target = self.rewriter.target.after
        matches = len(target) == 1 and target[0] in PROGRAMS
        self.require(matches, "program", f"program = {' '.join(target)}")
        if not is_upstreams(self.source):
            rule = "SOURCE=registry: the kit's program, same command line"
            _set_program(self.rewriter, self.source, rule)
        elif self.job == "configs":
            _write_elsewhere(self.rewriter, self.source)

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

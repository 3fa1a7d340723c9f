"""Upstream's own launch file, read as it is: ``LAUNCH=upstream``.

The file is that of the transformers fork.  It was written for one author's machine, and one of its
configurations stands for four variants, the user commenting a line in and another out.  What has to differ
from it is changed by the rules here, each with a name that ``make command … EXPLAIN=1`` shows, and nothing
else is.  A rule that finds nothing to change means that the file is not the one the rules were made for.
"""

import os
import re
from pathlib import Path
from typing import List, Optional

from . import jsonc, paths, source_rules, third_party, vscode
from .errors import KitError
from .rewrite import Rewriter
from .source import Source
from .variants import VARIANTS, Variant

NAME = "upstream"
"""The value of ``LAUNCH`` that stands for this file."""

_FOLDER = "examples/pytorch/question-answering"
_FILE = f"{_FOLDER}/gen-hybrid-sparse/vscode-launch.json"

CONFIGS, HYBRID, UNSTRUCTURED, EVALUATE = (
    "generate hybrid sparse config",
    "generate hybrid sparse + quantized model, onnx",
    "generate unstructured sparse + quantized model, onnx",
    "Eval squad",
)
"""The file's four configurations."""

_OUTPUT = {
    "/tmp/vscode-runs/memalign_tx/gen_hybrid_sparse": "work",
    "/tmp/vscode-runs/memalign_tx/squad-eval": "evaluate",
}
"""The author's output folders, and what stands for them below the build folder."""

_CONFIGS_OUTPUT = "configs/upstream"
"""The first configuration's, which shares its folder with the trees in the file."""

_DEVICES = Path("/dev")

_WORKSPACE = "/-workspaceFolder-"
"""Stands for ``${workspaceFolder}`` until a rule says where that is; no real path begins like this."""

_CWD = f"{_WORKSPACE}/transformers/{_FOLDER}"
"""The configurations' working folder."""

_SELECTED = "(the interpreter selected in VS Code)"
_INACTIVE = "(commented out) "
_COMMENTED = re.compile(r'^([ \t]*)//[ \t]*"((?:[^"\\\n]|\\.)*)"[ \t]*,?[ \t]*$', re.M)
"""A line that holds one string and nothing else, commented out: a choice that the file offers."""

_ABSOLUTE = re.compile(r"(^|=)[/~]")
"""A word that is an absolute path, or an option or a variable that has one for its value."""


def launch_file() -> Path:
    """Return the file's path.

    :raises KitError: the submodule that holds it is not checked out as pinned.
    """
    fork = third_party.find_fork("transformers")
    path = fork.folder / _FILE
    if third_party.is_checked_out(fork):
        third_party.check_pin(fork)
    if not third_party.is_checked_out(fork) or not path.is_file():
        raise KitError(
            "LAUNCH=upstream reads the launch file of the transformers fork, and that is not checked out.",
            where=f"{fork.submodule}/{_FILE}",
            hint="Fetch it: make third_party  (MIRROR=<folder> without a route to it)",
        )
    return path


def configuration_name(job: str) -> str:
    """Return the name of the configuration that a job of the kit is in upstream's file.

    :param job: ``configs``, a variant's name or ``evaluate``.
    :raises KitError: there is none for this job.
    """
    names = {"configs": CONFIGS, "evaluate": EVALUATE}
    names.update((name, HYBRID if variant.hybrid else UNSTRUCTURED) for name, variant in VARIANTS.items())
    if job in names:
        return names[job]
    raise KitError(
        f"Upstream's launch file has no configuration for {job!r}." if job else "No configuration was named.",
        where="V=" + job,
        hint="Set V to one of:\n  " + "\n  ".join(names),
    )


def rewriter(job: str, source: Source) -> Rewriter:
    """Return the invocation of a job as upstream's file has it, rewritten to run here on ``source``.

    :raises KitError: the file is missing or broken, lacks the job's configuration, or has changed so that a
        rule no longer matches.
    """
    path = launch_file()
    configuration = vscode.find(vscode.load(path), configuration_name(job))
    resolved = vscode.resolve(
        configuration, workspace=Path(_WORKSPACE), env=os.environ, default_python=_SELECTED
    )
    rules = _Rules(Rewriter(resolved), job, path, source)
    rules.rewriter.cwd.before = (str(configuration.body.get("cwd")),)  # as written, a slash at its end too
    rules.workspace()
    rules.interpreter()
    rules.environment()
    rules.device()
    rules.output()
    rules.authors_model()
    rules.variant(VARIANTS.get(job))
    rules.program()
    rules.authors_paths()
    return rules.rewriter


class _Rules:
    """The rules, in the order they are applied."""

    def __init__(self, rewriter: Rewriter, job: str, path: Path, source: Source) -> None:
        self.rewriter = rewriter
        self.job = job
        self.path = path
        self.source = source
        self.forked = source_rules.is_upstreams(source)

    def stale(self, rule: str, found: str) -> KitError:
        """Return the error for a rule that has nothing to apply to."""
        return KitError(
            f"Upstream's launch file has changed: the rule '{rule}' no longer matches it.",
            where=f"{paths.shown(self.path)}: {configuration_name(self.job)}: "
            + found.replace(_WORKSPACE, "${workspaceFolder}"),
            hint="Bring the rules in launch/upstream.py up to date with it, or the pin back to the commit"
            " that they were made for.",
        )

    def workspace(self) -> None:
        """Upstream's author had VS Code open in a folder with both repositories."""
        rule = "workspace folder: " + ("the patched sources" if self.forked else "the submodules")
        folder = str(self.source.tree if self.forked else paths.REPOSITORY / "third_party")
        found = self.rewriter.cwd.after[0]
        if found != _CWD:
            raise self.stale("workspace folder", f"cwd = {found}")
        self.rewriter.set_cwd(found.replace(_WORKSPACE, folder), rule)
        self.rewriter.map_words(lambda word: word.replace(_WORKSPACE, folder), rule)
        for part in self.rewriter.parts():
            part.before = tuple(word.replace(_WORKSPACE, "${workspaceFolder}") for word in part.before)

    def interpreter(self) -> None:
        """The file leaves the interpreter to VS Code."""
        rule = "interpreter: the kit's environment"
        if self.rewriter.python.after != (_SELECTED,):
            raise self.stale("interpreter", f"python = {' '.join(self.rewriter.python.after)}")
        self.rewriter.python.before = ()
        self.rewriter.set_python(str(paths.VENV_PYTHON), rule)

    def environment(self) -> None:
        """What the author had installed or exported."""
        source_rules.select(self.rewriter, self.source)

    def device(self) -> None:
        """The author computed on the second GPU."""
        found = self.rewriter.variable("CUDA_VISIBLE_DEVICES")
        if found is None or not found.isdigit():
            raise self.stale("CUDA device", f"env.CUDA_VISIBLE_DEVICES = {found}")
        if not (_DEVICES / f"nvidia{found}").exists():
            self.rewriter.set_variable(
                "CUDA_VISIBLE_DEVICES", "", f"CUDA device: there is no device {found} here"
            )

    def output(self) -> None:
        """The author's folders below ``/tmp`` are not where the kit builds."""
        rule = "output folder: the kit's"
        found = self.rewriter.value("--output_dir") or ""
        home = next((folder for folder in _OUTPUT if _is_below(found, folder)), None)
        if home is None:
            raise self.stale("output folder", f"--output_dir {found}")
        here = paths.BUILD / (_CONFIGS_OUTPUT if self.job == "configs" else _OUTPUT[home])
        for option in ("--output_dir", "--to_onnx"):
            value = self.rewriter.value(option)
            if value is not None and _is_below(value, home):
                self.rewriter.set(option, str(here) + value[len(home) :], rule)

    def authors_model(self) -> None:
        """The evaluation names a checkpoint on the author's disk, which is the hub's of the same name."""
        if self.job != "evaluate":
            return
        found = self.rewriter.value("--model_name_or_path") or ""
        offered = self.offered("--model_name_or_path")
        name = Path(found).name
        if not Path(found).is_absolute() or name not in offered:
            raise self.stale(
                "author's checkpoint", f"--model_name_or_path {found}, offered: {', '.join(offered)}"
            )
        self.rewriter.set(
            "--model_name_or_path", name, "author's checkpoint: the name that is commented out there"
        )

    def variant(self, variant: Optional[Variant]) -> None:
        """One configuration stands for the four hybrids: one is the active line, the others comments."""
        if variant is None or not variant.hybrid:
            return
        offered = self.offered("--config_name")
        fitting = [choice for choice in offered if Path(choice).parent.name == variant.name]
        if len(fitting) != 1:
            raise self.stale("variant", f"--config_name offers {', '.join(offered) or 'nothing'}")
        self.rewriter.set(
            "--config_name", fitting[0], "variant: the line that is commented out for it in the file"
        )

    def program(self) -> None:
        """Which file a program's name stands for."""
        if self.rewriter.target.after not in (("run_qa.py",), ("gen_hybrid_sparse_qa.py",)):
            raise self.stale("program", f"program = {' '.join(self.rewriter.target.after)}")
        if not self.forked:
            program = self.source.programs / self.rewriter.target.after[0]
            self.rewriter.set_target((str(program),), "SOURCE=registry: the kit's program, same command line")
        elif self.job == "configs":
            source_rules.write_elsewhere(self.rewriter, self.source)

    def authors_paths(self) -> None:
        """An absolute path that no rule has changed is one of the author's machine."""
        for part in self.rewriter.parts():
            for word in part.after:
                if word in part.before and _ABSOLUTE.search(word):
                    raise self.stale("author's paths", f"{part.what} {' '.join(part.before)}")

    def offered(self, option: str) -> List[str]:
        """Return the values that the file offers for ``option``: the active one and those commented out."""
        text = self.path.read_text(encoding="utf-8-sig")
        marked = _COMMENTED.sub(rf'\1"{_INACTIVE}\2",', text)
        try:
            document = jsonc.loads(marked, str(self.path))
        except KitError:
            return []  # comments that stand where no value may: the caller's rule does not match
        for entry in document["configurations"]:
            words = entry.get("args") if entry.get("name") == configuration_name(self.job) else None
            if isinstance(words, list) and option in words:
                values: List[str] = []
                for word in map(str, words[words.index(option) + 1 :]):
                    inactive = word.startswith(_INACTIVE)
                    value = word[len(_INACTIVE) :] if inactive else word
                    if value.startswith("--"):
                        break
                    values.append(value)
                return values
        return []


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")

"""Rules that let a configuration run on a source of NNCF and transformers."""

import os
from pathlib import Path

from . import hidden, paths
from .errors import KitError
from .rewrite import Rewriter
from .source import Fork, Registry, Source
from .vscode import Invocation

ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1048576"
"""glibc's allocator ("Memory Allocation Tunables" in its manual): a megabyte and more is mapped by itself.

By default the heap keeps freed tensors of up to 32 MB, small objects come to lie between them, and it grows:
by 0.7 GB with each of four calibration batches of the unstructured variant.  Mapping costs a page fault for
each page; ``hugetlb=1`` (glibc 2.35 and later, where the kernel's transparent huge pages allow it) makes
pages 2 MB large.  No other allocator reads the variable.
"""

PROGRAMS = ("gen_hybrid_sparse_qa.py", "run_qa.py")
"""The question-answering programs; the kit's and upstream's have the same names."""


def select(rewriter: Rewriter, source: Source) -> None:
    """Let an invocation run on ``source``: its packages, its compiled extension, the tools it calls."""
    name = f"SOURCE={source.name}"
    own = os.pathsep.join(map(str, source.python_path))
    rewriter.set_variable("PYTHONPATH", own, f"{name}: selects nncf, transformers and the script's modules")
    tools = str(paths.VENV / "bin")
    search = rewriter.variable("PATH")
    search = search or hidden.of_environment("PATH", os.environ.get("PATH", "")) or os.defpath
    if tools not in search.split(os.pathsep):
        search = hidden.joined(os.pathsep, [tools, search])
    rewriter.set_variable("PATH", search, "ninja compiles NNCF's extension")
    rewriter.set_variable("TORCH_EXTENSIONS_DIR", str(source.extensions), f"{name}: its compiled extension")
    rewriter.set_variable("PYTHONHASHSEED", "0", "same order in every run")
    allocator = rewriter.variable("GLIBC_TUNABLES")
    if source.fast and allocator is None:
        rewriter.set_variable("GLIBC_TUNABLES", ALLOCATOR, "freed tensors leave the process at once")
    elif not source.fast and allocator == ALLOCATOR:
        rewriter.drop_variable("GLIBC_TUNABLES", "FAST=0: the allocator as it is")


def write_elsewhere(rewriter: Rewriter, source: Source) -> None:
    """Run upstream's generator of configs where it may write: it writes below its working folder.

    Only for ``--gen_sparse_cfg`` on source ``fork``.
    """
    rule = "writes below its working folder: not into the sources"
    program = source.programs / Path(rewriter.target.after[-1]).name
    rewriter.set_target((str(program),), rule)
    folder = paths.BUILD / "configs" / source.name
    folder.mkdir(parents=True, exist_ok=True)  # so that the printed command can be pasted, too
    rewriter.set_cwd(str(folder), rule)


def runs_the_kits(rewriter: Rewriter) -> bool:
    """Return whether an invocation runs one of the kit's own programs, by whatever path."""
    if len(rewriter.target.after) != 1:
        return False
    return _is_one(Path(rewriter.cwd.after[0]) / rewriter.target.after[0], Registry())


def is_program(invocation: Invocation, source: Source) -> bool:
    """Return whether an invocation runs one of a source's programs, with no options of the interpreter's."""
    if len(invocation.target) != 1 or invocation.options:
        return False
    return _is_one(Path(invocation.cwd) / invocation.target[0], source)


def _is_one(path: Path, source: Source) -> bool:
    program = Path(os.path.normpath(path))
    return program.parent == source.programs and program.name in PROGRAMS


def move(rewriter: Rewriter, source: Source, where: str) -> None:
    """Let a configuration that was written for the registry's releases, as the kit's are, run on ``source``.

    :param where: the launch file with the key and the value that name the program, for the error.
    :raises KitError: the configuration uses the releases in a way that no rule knows.
    """
    if source.name == Registry.name:
        return
    rule = f"SOURCE={source.name}: upstream's own script"
    if not runs_the_kits(rewriter):
        raise KitError(
            f"SOURCE={source.name} runs upstream's scripts in place of the kit's program, and this"
            " configuration runs neither.",
            where=where,
            hint="Run it with SOURCE=registry, or set its program to one of launch/qa/.",
        )
    rewriter.set_target((str(source.programs / Path(rewriter.target.after[0]).name),), rule)
    rewriter.set_python(str(paths.VENV_PYTHON), "interpreter: the kit's environment")
    select(rewriter, source)
    if rewriter.has("--gen_sparse_cfg"):
        write_elsewhere(rewriter, source)
        # Upstream's script tokenizes questions before it writes configs.
        rule = f"SOURCE={source.name}: upstream's script wants questions first"
        for option, value in (
            ("--train_file", str(paths.SAMPLE / "train.json")),
            ("--validation_file", str(paths.SAMPLE / "validation.json")),
        ):
            if not rewriter.has(option):
                rewriter.set(option, value, rule)
        if not rewriter.has("--do_eval"):
            rewriter.flag("--do_eval", rule)


def is_upstreams(source: Source) -> bool:
    """Return whether the programs of ``source`` are upstream's own scripts, which know nothing of the kit."""
    return source.name == Fork.name

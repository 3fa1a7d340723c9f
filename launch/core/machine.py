"""The machine: what it is, whether the kit can build on it, and which shell variables programs get."""

import os
import platform
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set

from . import paths
from .errors import KitError

_CPUINFO = Path("/proc/cpuinfo")
_MODEL_NAME = re.compile(r"^model name\s*:\s*(.*\S)", re.M)

SIGNS = "@%+=./-_"  # allowed in a path besides letters and digits; a model was made in a folder with each

_NAMES = {" ": "a space", "\n": "a line end", "\t": "a tab"}
_REASONS = {
    ":": "PYTHONPATH and PATH are split at it",
    ",": "Model Optimizer splits its list of folders at it",
}
# torch/utils/cpp_extension.py
_UNQUOTED = "torch's extension builder puts paths unquoted on the compiler's command line"

NOT_INHERITED = (
    *("ATEN_", "DNNL_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_"),  # how the libraries compute
    *("PYTHON", "PYTORCH_", "USE_FLAX", "USE_JAX", "USE_TF", "USE_TORCH"),  # how Python and torch run
    *("LOCAL_RANK", "RANK", "WORLD_SIZE"),  # that upstream's scripts take for a part in a distributed run
)
"""Prefixes of variables that a job's program gets from the launch file only, not from the shell."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch reads both; where they differ, the second counts
_MOST_THREADS = 1024
_CORES = Path("/sys/devices/system/cpu")


def describe_host(python: str) -> Dict[str, Any]:
    """Return ``host`` of a provenance, with ``python``'s version; unknown facts are empty."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": read_processor(),
        "cores": len(os.sched_getaffinity(0)),  # those that this process may use
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": read_python_version(python),
    }


def read_processor() -> str:
    """Return the processor's model name; empty where ``/proc/cpuinfo`` does not say."""
    try:
        found = _MODEL_NAME.search(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found.group(1) if found else ""


INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
"""Instruction sets that matter to 8-bit products, as ``/proc/cpuinfo`` calls them."""


def read_instructions() -> List[str]:
    """Return which of :data:`INSTRUCTIONS` the processor has; none where ``/proc/cpuinfo`` does not say."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = re.search(r"^flags\s*:(.*)", text, re.M)
    return [name for name in INSTRUCTIONS if found and name in found.group(1).split()]


def read_python_version(python: str) -> str:
    """Return the version of a virtual environment's interpreter; empty outside of one, or if it fails."""
    settings = Path(python).parent.parent / "pyvenv.cfg"
    if not (settings.is_absolute() and settings.is_file()):
        return ""
    # The file has a version, but of a Python that uv has fetched no more than 3.8.
    ask = [python, "-I", "-c", "import platform; print(platform.python_version())"]
    try:
        done = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def has_compiler(environ: Mapping[str, str]) -> bool:
    """Return whether ``$CXX``, else ``c++``, else ``g++``, is on the PATH of ``environ``."""
    # CXX may hold more than a name: "ccache g++".
    names = environ.get("CXX", "").split()[:1] or ("c++", "g++")
    return any(shutil.which(name, path=environ.get("PATH")) for name in names)


def check_place() -> None:
    """:raises KitError: the locks are not for this machine, or a build cannot handle the checkout's path."""
    check_machine()
    path = paths.REPOSITORY
    for character in str(path):
        category = unicodedata.category(character)
        # Letters, the marks that some are written with, and numbers.
        if category[0] in "LMN" or character in SIGNS:
            continue
        name = repr(character) if character.isprintable() else f"U+{ord(character):04X}"
        if category == "Cs":
            name = f"a byte that is not UTF-8 ({ord(character) - 0xDC00:#04x})"
        raise KitError(
            f"The checkout's path has {_NAMES.get(character, name)} in it, and nothing can be built there:"
            f" {_REASONS.get(character, _UNQUOTED)}.",
            where=str(path),
            hint=f"Move or clone the checkout to a path of letters, digits and {' '.join(SIGNS)} only.",
        )


def check_machine() -> None:
    """:raises KitError: the machine is not what the locked libraries are for: Linux on x86-64, with glibc."""
    system, machine = platform.system(), platform.machine()
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        library = ""
    if (system, machine) == ("Linux", "x86_64") and library:
        return
    here = f"{system} on {machine}" + (" without glibc" if system == "Linux" and not library else "")
    raise KitError(
        f"Nothing can be made on this machine, {here}: torch 1.9.1 and openvino 2022.1, among others,"
        " are there for Linux on x86-64 with glibc alone.",
        where="launch/setup/locks/runtime.lock",
        hint="Take such a machine, or a container or a virtual machine of one"
        " (docker run --platform linux/amd64 debian).",
    )


def is_writable(folder: Path) -> bool:
    """Return whether ``folder``, or its nearest existing parent, can be written to."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(str(folder), os.W_OK | os.X_OK)


def measure_free_disk(folder: Path) -> int:
    """Return the free bytes on the filesystem of ``folder`` or of its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_disk(what: str, folder: Path, need: int, option: str = "OUT") -> None:
    """:raises KitError: fewer than ``need`` bytes are free where ``folder`` is."""
    free = measure_free_disk(folder)
    if free < need:
        raise KitError(
            f"{what} needs about {need / 1e9:.1f} GB of disk; {free / 1e9:.1f} GB are free.",
            where=paths.show_path(folder),
            hint=f"Free disk space, or set {option}= to a folder on another disk.",
        )


def inherit_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables of a shell that a program inherits: all but :data:`NOT_INHERITED`."""
    return {name: value for name, value in environ.items() if not name.startswith(NOT_INHERITED)}


def parse_threads(text: str) -> Optional[int]:
    """Return the number in ``THREADS=text``, None where it is empty; a KitError unless it is 1 to 1024."""
    if not text:
        return None
    if not (re.fullmatch("[0-9]{1,4}", text) and 1 <= int(text) <= _MOST_THREADS):
        raise KitError(
            f"The number of threads is not a whole number from 1 to {_MOST_THREADS}.",
            where=f"THREADS={text}",
            hint="Correct THREADS, or leave it out for as many as torch would take.",
        )
    return int(text)


def count_torch_threads(env: Mapping[str, str]) -> int:
    """Return how many threads torch 1.9.1 takes in a process with these variables.

    It asks MKL (``aten/src/ATen/ParallelOpenMP.cpp``): ``MKL_NUM_THREADS``, else ``OMP_NUM_THREADS``, at most
    the machine's cores unless ``MKL_DYNAMIC`` is false; by default the cores of the process ("Improving
    Performance with Threading" in MKL's developer guide).
    """
    for name in reversed(THREADS):
        found = re.match(r"\s*([0-9]{1,4})(?![0-9])", env.get(name, ""))
        if found and int(found.group(1)) > 0:
            asked = min(int(found.group(1)), _MOST_THREADS)
            fixed = env.get("MKL_DYNAMIC", "").strip().lower() in ("0", "false", "no", "off")
            return asked if fixed else min(asked, count_cores())
    return count_cores(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None)


def count_cores(among: Optional[Set[int]] = None) -> int:
    """Return the number of the machine's cores, or of those that the processors ``among`` belong to."""
    siblings = set()
    for processor in among if among is not None else range(os.cpu_count() or 1):
        try:
            siblings.add((_CORES / f"cpu{processor}/topology/thread_siblings_list").read_text())
        except OSError:
            siblings.add(str(processor))
    return max(1, len(siblings))

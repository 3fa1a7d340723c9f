"""What of a person's shell and machine decides what a program computes: the number of threads, and variables.

torch 1.9 adds up the norm of a matrix thread by thread in 32 bits, and masks depend on these norms, so the
bytes of a tree depend on the number of threads.
"""

import os
import re
from pathlib import Path
from typing import Dict, Mapping, Optional, Set

from .errors import KitError

NOT_INHERITED = (
    *("ATEN_", "DNNL_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_"),  # how the libraries compute
    *("PYTHON", "PYTORCH_", "USE_FLAX", "USE_JAX", "USE_TF", "USE_TORCH"),  # how Python and torch run
    *("LOCAL_RANK", "RANK", "WORLD_SIZE"),  # that upstream's scripts take for a part in a distributed run
)
"""How the variables begin that a job's program does not inherit; what the launch file sets, it gets."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables by which torch takes a number of threads; where they differ, the second counts."""

_MOST = 1024

_CORES = Path("/sys/devices/system/cpu")


def inherit_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables of a shell that a program of the kit inherits."""
    return {name: value for name, value in environ.items() if not name.startswith(NOT_INHERITED)}


def parse_threads(text: str) -> Optional[int]:
    """Return the number that the text of ``THREADS=`` means; None where it is empty.

    :raises KitError: it is no number of threads.
    """
    if not text:
        return None
    if not (re.fullmatch("[0-9]{1,4}", text) and 1 <= int(text) <= _MOST):
        raise KitError(
            f"The number of threads is not a whole number from 1 to {_MOST}.",
            where=f"THREADS={text}",
            hint="Correct THREADS, or leave it out for as many as torch would take.",
        )
    return int(text)


def count_torch_threads(env: Mapping[str, str]) -> int:
    """Return how many threads torch 1.9.1 takes in a process with these variables.

    It asks MKL (``aten/src/ATen/ParallelOpenMP.cpp``), which takes ``MKL_NUM_THREADS``, else
    ``OMP_NUM_THREADS``, but at most the machine's cores unless ``MKL_DYNAMIC`` is false; by default the cores
    of the process ("Improving Performance with Threading" in MKL's developer guide).
    """
    for name in reversed(THREADS):
        found = re.match(r"\s*([0-9]{1,4})(?![0-9])", env.get(name, ""))
        if found and int(found.group(1)) > 0:
            asked = min(int(found.group(1)), _MOST)
            fixed = env.get("MKL_DYNAMIC", "").strip().lower() in ("0", "false", "no", "off")
            return asked if fixed else min(asked, count_cores())
    return count_cores(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None)


def count_cores(among: Optional[Set[int]] = None) -> int:
    """Return the number of cores of the machine, or of those to which the processors ``among`` belong."""
    siblings = set()
    for processor in among if among is not None else range(os.cpu_count() or 1):
        try:
            siblings.add((_CORES / f"cpu{processor}/topology/thread_siblings_list").read_text())
        except OSError:
            siblings.add(str(processor))
    return max(1, len(siblings))


def read_threads(env: Mapping[str, Optional[str]]) -> int:
    """Return the number of threads that an invocation takes, as the kit's rules have set it."""
    return int(env[THREADS[0]] or 0)

"""The kit's tests.

What they run with is set here, before anything of the kit is imported: what `make` exports is taken away, for
tests say themselves what they want; what is imported is compiled once, and kept; the sources are the
registry's releases, whether or not the submodules are checked out; and each process of tests has a build
folder of its own, with its lock and its logs.
"""

import os
import signal
import sys
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
"""The name of this process among those that run tests side by side."""

for _name in list(os.environ):
    if _name.startswith(("LAUNCH_", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONDONTWRITEBYTECODE")):
        del os.environ[_name]
sys.dont_write_bytecode = False
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
os.environ["LAUNCH_SOURCE"] = "registry"
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # commands fork processes that may have loaded tokenizers
os.environ["KIT_BUILD"] = str(Path(__file__).resolve().parent.parent / "build" / "tests" / WORKER)

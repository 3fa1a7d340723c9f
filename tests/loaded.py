"""Pythons that have a package loaded, and run programs in copies of themselves.

Each program is a process of its own, as it is for users, but for the seconds that loading torch takes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, Mapping, Sequence

SERVE = """
import gc, importlib, json, os, runpy, sys, traceback

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # torch prints to it
importlib.import_module(sys.argv[1])
gc.freeze()
for line in sys.stdin:
    call = json.loads(line)
    process = os.fork()
    if not process:
        break
    print(os.waitpid(process, 0)[1], file=answers, flush=True)
else:
    sys.exit()
for number, name in enumerate((os.devnull, call["out"], call["err"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
os.chdir(call["cwd"])
os.environ.update(call["env"])
sys.argv = call["argv"]
status = 0
try:
    if sys.argv[0] == "-c":
        exec(sys.argv.pop(1), {"__name__": "__main__"})
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    status = ended.code or 0
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)  # Python's own end would free all that is loaded, which takes a second
"""


class Loaded:
    """The Pythons, by what they have loaded; ``env`` is their environment, and that of the programs."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._env = dict(env)
        self._files = {name: folder / name for name in ("out", "err")}
        self._pythons: Dict[str, subprocess.Popen] = {}

    def run(
        self, package: str, argv: Sequence[str], cwd: Path, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program, or ``-c`` and a script, to its end where ``package`` is loaded."""
        if package not in self._pythons:
            self._pythons[package] = subprocess.Popen(
                [sys.executable, "-c", SERVE, package],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        python = self._pythons[package]
        assert python.stdin is not None
        assert python.stdout is not None
        call = {"argv": list(argv), "cwd": str(cwd), "env": env}
        call.update((name, str(file)) for name, file in self._files.items())
        print(json.dumps(call), file=python.stdin, flush=True)
        status = int(python.stdout.readline())
        texts = [file.read_text(encoding="utf-8") for file in self._files.values()]
        for file in self._files.values():
            file.unlink()
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        return subprocess.CompletedProcess(argv, code, *texts)

    def close(self) -> None:
        """End them."""
        for python in self._pythons.values():
            python.communicate()

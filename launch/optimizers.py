"""The Model Optimizers that can make the IR, and the environment of the one that needs its own.

2022.1 is part of the kit's environment.  2021.4 brings another openvino under the same name; so it has an
environment to itself, made from a lock of its own when it is first asked for.
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

from . import environment, files, interpreters, locks, paths
from .errors import KitError
from .installer import uv_environment
from .steps import Steps

SMOKE_TEST = (
    "import onnx\n"
    "from openvino.inference_engine import read_network\n"
    "from openvino.offline_transformations import ApplyMOCTransformations, GenerateMappingFile\n"
    "import mo.main"
)
"""What must work before an environment of its own counts as made: what a conversion imports.

Model Optimizer itself goes on without the middle two, and then writes another IR.
"""


@dataclass(frozen=True)
class Optimizer:
    """One release of Model Optimizer.

    :param name: what ``MO=`` calls it.
    :param ir_version: version of the IR that it writes, which stands in the first element of the ``.xml``.
    :param lock: the lock that its packages are in.
    :param module: what ``python -m`` runs.
    :param separate: whether it has an environment to itself; the others are part of the kit's.
    """

    name: str
    ir_version: int
    lock: str
    module: str
    separate: bool = False

    @property
    def folder(self) -> Path:
        """The environment that it is installed in."""
        return paths.BUILD / "env" / f"mo-{self.name}" if self.separate else paths.VENV

    def python(self, kits: Path) -> Path:
        """Return the interpreter that runs it.

        :param kits: the one that runs it where it is part of the kit's environment.
        """
        return self.folder / "bin" / "python" if self.separate else kits

    def command(self, python: Path) -> List[str]:
        """Return the command that starts it, without arguments."""
        return [str(python), "-m", self.module]

    def lock_digest(self) -> str:
        """Return the digest of its lock.

        :raises KitError: the lock cannot be read.
        """
        return environment.lock_digest(self.lock)


DEFAULT = Optimizer("2022.1", ir_version=11, lock="runtime.lock", module="openvino.tools.mo")

OPTIMIZERS: Dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        DEFAULT,
        # Not its module `mo`, which starts this one as a child of its own: that child would not be killed
        # with the kit, and converts for minutes.  Both write the same bytes.
        Optimizer("2021.4", ir_version=10, lock="mo2021.lock", module="mo.main", separate=True),
    )
}
"""Each release by its name."""


def get(text: str) -> Optimizer:
    """Return the Model Optimizer that a person's ``text`` names.

    :raises KitError: there is none; the error names those there are.
    """
    if text in OPTIMIZERS:
        return OPTIMIZERS[text]
    choices = " or ".join(f"MO={name}" for name in OPTIMIZERS)
    raise KitError(
        f"There is no Model Optimizer {text!r} in the kit." if text else "No Model Optimizer was named.",
        where=f"MO={text}",
        hint=f"Set {choices}; without MO it is {DEFAULT.name}.",
    )


def _stamp_file(optimizer: Optimizer) -> Path:
    return optimizer.folder / ".kit-stamp.json"


def is_ready(optimizer: Optimizer) -> bool:
    """Whether the environment that the optimizer has to itself is whole and made from its lock as it is now.

    Where it has none, it is ready when the kit's is, which is not asked here.

    :raises KitError: the lock cannot be read.
    """
    if not optimizer.separate:
        return True
    try:
        stamp = json.loads(_stamp_file(optimizer).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # The link to the interpreter outlives the interpreter.
    whole = os.access(optimizer.python(paths.VENV_PYTHON), os.X_OK)
    return bool(whole and stamp == _stamp(optimizer.lock_digest()))


def _stamp(digest: str) -> Dict[str, str]:
    return {"lock": digest}


def ensure(optimizer: Optimizer) -> bool:
    """Make the environment that the optimizer has to itself if it is not ready; return whether it was made.

    Where it has none there is nothing to do.  The kit's environment must be ready: its interpreter's base and
    its uv are used.

    :raises KitError: a step failed; the next call starts over.
    """
    if is_ready(optimizer):
        return False
    folder = optimizer.folder
    try:
        with locks.exclusive(
            folder.with_name(folder.name + ".lock"), f"the environment of Model Optimizer {optimizer.name}"
        ) as lock:
            if is_ready(optimizer):
                return False
            _make(optimizer, lock)
    except OSError as error:
        raise KitError(
            f"The environment of Model Optimizer {optimizer.name} cannot be made: {error.strerror or error}.",
            where=paths.shown(Path(error.filename) if error.filename else folder),
            hint="Free disk space or correct the permissions, then run the same command again.",
        ) from None
    return True


def _base() -> interpreters.Interpreter:
    """Return the interpreter that the kit's environment was made from.

    :raises KitError: there is no such environment, or it has lost its interpreter.
    """
    try:
        return interpreters.probe(str(paths.VENV_PYTHON), "the environment's interpreter")
    except interpreters.Unusable as reason:
        raise KitError(
            f"The interpreter of the kit's environment {reason}.",
            where=paths.shown(paths.VENV_PYTHON),
            hint="make setup",
        ) from None


def _make(optimizer: Optimizer, lock: int) -> None:
    """Make the environment anew, which takes seconds where uv has its packages already."""
    started = time.monotonic()
    interpreter = _base()
    # Taken now: a lock that is edited while its packages are installed must count as changed.
    digest = optimizer.lock_digest()
    packages = len(environment.pins(optimizer.lock))
    folder, python, uv = optimizer.folder, str(optimizer.python(paths.VENV_PYTHON)), paths.VENV / "bin" / "uv"
    log = paths.BUILD / "log" / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        steps = Steps(stream, log, lock, started)
        if _stamp_file(optimizer).exists():
            _stamp_file(optimizer).unlink()
        if folder.exists():
            shutil.rmtree(str(folder))
        steps.run(
            f"making {paths.shown(folder)} for Model Optimizer {optimizer.name}",
            [interpreter.path, "-I", "-m", "venv", "--without-pip", str(folder)],
        )
        steps.run(
            f"installing {packages} packages",
            [
                *(str(uv), "pip", "sync", "--python", python),
                *("--require-hashes", "--only-binary", ":all:"),
                str(paths.ENVIRONMENT_DATA / optimizer.lock),
            ],
            environment=uv_environment(str(paths.VENV_PYTHON), str(uv)),
            downloads=True,
        )
        steps.run("trying the environment", [python, "-I", "-c", SMOKE_TEST])
        files.write(_stamp_file(optimizer), json.dumps(_stamp(digest)) + "\n")
        steps.say(f"{paths.shown(folder)} is ready")

"""The Model Optimizers that can make the IR, and the environment of the one that needs its own.

2022.1 is part of the kit's environment.  2021.4 brings another openvino under the same name; so it has an
environment to itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

from ..core import paths
from ..setup import requirements
from ..setup.environment import KIT, Venv
from ..core.errors import unknown

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
    :param lock: the lock that its packages are in.
    :param module: what ``python -m`` runs.
    :param separate: the environment that it has to itself; the others are part of the kit's.
    """

    name: str
    lock: str
    module: str
    separate: Optional[Venv] = None

    def python(self, kits: Path) -> Path:
        """Return the interpreter that runs it.

        :param kits: the one that runs it where it is part of the kit's environment.
        """
        return self.separate.python if self.separate else kits

    def command(self, python: Path) -> List[str]:
        """Return the command that starts it, without arguments."""
        return [str(python), "-m", self.module]

    def lock_digest(self) -> str:
        """Return the digest of its lock.

        :raises KitError: the lock cannot be read.
        """
        return requirements.lock_digest(self.lock)


# Not the modules `openvino.tools.mo` and `mo`, which start these as a child of their own: that would not be
# killed with the kit, and writes on.  Both write the same bytes.
DEFAULT = Optimizer("2022.1", lock="runtime.lock", module="openvino.tools.mo.main")

OPTIMIZERS: Dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        DEFAULT,
        Optimizer(
            "2021.4",
            lock="mo2021.lock",
            module="mo.main",
            separate=Venv(
                paths.ENVIRONMENTS / "mo-2021.4",
                "Model Optimizer 2021.4",
                ("mo2021.lock",),
                0.15e9,
                SMOKE_TEST,
                base=KIT,
            ),
        ),
    )
}
"""Each release by its name."""


def get(text: str) -> Optimizer:
    """Return the Model Optimizer that a person's ``text`` names.

    :raises KitError: there is none; the error names those there are.
    """
    if text in OPTIMIZERS:
        return OPTIMIZERS[text]
    raise unknown("Model Optimizer", text, "MO", OPTIMIZERS)

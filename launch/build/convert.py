"""ONNX to OpenVINO IR by a release of Model Optimizer."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..artifact import trees
from ..core import child, files, hidden, machine, paths
from ..core.errors import KitError, make_unknown_error
from ..setup import requirements
from ..setup.environment import KIT, Venv

_SMOKE_TEST = (
    "import onnx\n"
    "from openvino.inference_engine import read_network\n"
    "from openvino.offline_transformations import ApplyMOCTransformations, GenerateMappingFile\n"
    "import mo.main"
)
"""What a conversion by 2021.4 imports; without the middle two it would go on and write another IR."""

_VOLATILE = re.compile(
    r"^\[ SUCCESS \] (Total execution time|Memory consumed).*\n|^It's been a while.*\n", re.M
)

_FALLBACK = "Using fallback to produce IR"
"""What 2021.4 says where it leaves out its last step, the runtime's transformations, and still succeeds."""


@dataclass(frozen=True)
class Optimizer:
    """One release of Model Optimizer, named as in ``MO=``.

    :param separate: its own environment (2021.4 brings another package ``openvino``); None: the kit's.
    """

    name: str
    lock: str
    module: str
    separate: Optional[Venv] = None

    def python(self, kits: Path) -> Path:
        """Return the interpreter that runs it: its own environment's, or ``kits``."""
        return self.separate.python if self.separate else kits


# Not the modules `openvino.tools.mo` and `mo`, which start these as a child of their own: that would not be
# killed with the kit, and writes on.  Both write the same bytes.
DEFAULT = Optimizer("2022.1", lock="runtime.lock", module="openvino.tools.mo.main")

_OLD = Venv(
    paths.ENVIRONMENTS / "mo-2021.4",
    "Model Optimizer 2021.4",
    ("mo2021.lock",),
    0.15e9,
    0.05e9,
    _SMOKE_TEST,
    base=KIT,
)

OPTIMIZERS = {
    "2022.1": DEFAULT,
    "2021.4": Optimizer("2021.4", lock="mo2021.lock", module="mo.main", separate=_OLD),
}


def find_optimizer(name: str) -> Optimizer:
    """:raises KitError: ``MO=`` names no Model Optimizer that there is."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    raise make_unknown_error("Model Optimizer", name, "MO", OPTIMIZERS)


def _command(python: Path, onnx_path: Path, optimizer: Optimizer) -> List[str]:
    return [str(python), "-m", optimizer.module, "--input_model", onnx_path.name, "--output_dir", "ir"]


def make_ir_key(onnx_sha256: str, optimizer: Optimizer = DEFAULT) -> Dict[str, Any]:
    """Return what the IR of an ONNX file depends on, as JSON."""
    return {
        "command": _command(Path("python"), Path("model.onnx"), optimizer)[1:],
        "lock": requirements.digest_lock(optimizer.lock),
        "program": files.digest_file(Path(__file__)),
        "onnx": onnx_sha256,
    }


def convert_to_ir(
    python: Path,
    onnx_path: Path,
    base: Dict[str, str],
    tick: Callable[[Optional[str]], None],
    inherit: Sequence[int] = (),
    optimizer: Optimizer = DEFAULT,
) -> child.Usage:
    """Convert ``onnx_path`` into ``ir/`` beside it and return what that took; the log can be published.

    :param python: the interpreter of the kit's environment; ``base``: the variables to start from.
    :raises KitError: Model Optimizer fails, or leaves a file or a step out.
    """
    python = optimizer.python(python)
    tree = onnx_path.parent
    log = tree / "ir" / trees.MO_LOG
    home = paths.BUILD / "home"
    files.write_text(home / "intel" / "openvino_telemetry", "0")  # without an answer there it asks and waits
    usage = child.run_child(
        _command(python, onnx_path, optimizer),
        env={**machine.inherit_variables(base), "HOME": str(home), "PYTHONHASHSEED": "0"},
        cwd=tree,
        log=log,
        what=f"IR by Model Optimizer {optimizer.name}",
        tick=tick,
        inherit=inherit,
    )
    missing = [name for name in trees.list_ir_files(onnx_path.stem) if not (tree / name).is_file()]
    text = log.read_text(encoding="utf-8", errors="replace")
    if missing or _FALLBACK in text:
        raise KitError(
            f"Model Optimizer left out {', '.join(missing) or 'its last step'}."
            f" Its last lines:\n{child.read_tail(log)}",
            where=f"log: {paths.show_path(log)}",
            hint="Its last lines say why.",
        )
    folders = {"<venv>": python.parent.parent, "<tree>": tree, "<kit>": paths.REPOSITORY}
    text = hidden.name_folders(
        text, {name: folder for name, folder in folders.items() if folder.is_absolute()}
    )
    log.write_text(_VOLATILE.sub("", text), encoding="utf-8")
    return usage

"""The weights in a model folder."""

from pathlib import Path

from ..core import files
from ..core.errors import KitError

NAME = "pytorch_model.bin"
"""Weights in a model folder, as transformers 4.9.1 names them."""

NAMES = ("model.safetensors", "model.safetensors.index.json", NAME, f"{NAME}.index.json")
"""What a folder's weights are read from: the first of these that is there (``current_checkpoints.patch``)."""

RANDOM = "random"
"""``--weights random``: weights are drawn from the seed, and no checkpoint is read."""

ORIGIN = "eval_weights.txt"
"""Beside the results of upstream's script: in one line, where the weights are from."""

_OTHERS = ("*.safetensors", "*.bin", "*.h5", "*.msgpack", "*.ckpt*", "*.gguf", "*.onnx")


def find_checkpoint(folder: Path) -> Path:
    """Return the checkpoint in ``folder``.

    :raises KitError: there is none that is read.
    """
    for name in NAMES:
        if (folder / name).is_file():
            files.check_no_pointer(folder / name)
            return folder / name
    others = sorted({path.name for pattern in _OTHERS for path in folder.glob(pattern)})
    raise KitError(
        "The model folder holds weights, but none under a name that is read."
        if others
        else "The model folder holds no weights.",
        where=f"{folder}: {', '.join(others[:3])}" if others else str(folder),
        hint=(
            f"Put the model's checkpoint there ({', '.join(NAMES)}), or have weights drawn: WEIGHTS=random,"
            " which is --weights random in a launch file."
        ),
    )

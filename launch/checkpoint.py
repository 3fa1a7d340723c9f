"""Whether a model folder holds weights that can be loaded."""

from pathlib import Path

from .errors import KitError

NAME = "pytorch_model.bin"
"""Weights in a model folder, as transformers 4.9.1 names them."""

_OTHERS = ("*.safetensors", "pytorch_model*", "*.h5", "*.msgpack", "*.ckpt*")


def is_in(folder: Path) -> bool:
    """Return whether ``folder`` has a checkpoint; a folder without any weights stands for random ones.

    :raises KitError: it has weights, but none that transformers 4.9.1 loads into torch.
    """
    if (folder / NAME).exists():
        return True
    others = sorted(path.name for pattern in _OTHERS for path in folder.glob(pattern))
    if others:
        raise KitError(
            f"The folder holds weights, but no {NAME}.",
            where=f"{folder}: {', '.join(others[:3])}",
            hint=(
                f"Save the model as {NAME} (transformers' save_pretrained), "
                "or move these files away to evaluate random weights."
            ),
        )
    return False

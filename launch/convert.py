"""ONNX to OpenVINO IR with Model Optimizer 2022.1."""

import re
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from . import child, paths
from .errors import KitError

SUFFIXES = (".bin", ".mapping", ".xml")
"""The IR's files."""

LOG = "mo.log"
"""Model Optimizer's own words, beside the IR."""

_VOLATILE = re.compile(
    r"^\[ SUCCESS \] (Total execution time|Memory consumed).*\n|^It's been a while.*\n", re.M
)


def command(python: Path, onnx_path: Path) -> List[str]:
    """Return the command that converts ``onnx_path``; it writes into ``ir`` below its working directory."""
    return [str(python), "-m", "openvino.tools.mo", "--input_model", onnx_path.name, "--output_dir", "ir"]


def files(stem: str) -> List[str]:
    """Return the names of the files that a conversion leaves, relative to the tree."""
    return [f"ir/{stem}{suffix}" for suffix in SUFFIXES] + [f"ir/{LOG}"]


def environment(base: Dict[str, str]) -> Dict[str, str]:
    """Return Model Optimizer's environment.

    Its telemetry asks for consent in a file in the home folder and waits for an answer where there is none;
    it is given a home of its own in which the answer is no, so that nothing asks and nothing is sent.

    :param base: the environment to start from.
    """
    home = paths.BUILD / "home"
    consent = home / "intel" / "openvino_telemetry"
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0")
    kept = {name: value for name, value in base.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "HOME": str(home), "PYTHONHASHSEED": "0"}


def convert(
    python: Path,
    onnx_path: Path,
    base: Dict[str, str],
    tick: Callable[[Optional[str]], None],
    inherit: Sequence[int] = (),
) -> child.Usage:
    """Convert ``onnx_path`` into ``ir/`` beside it and return what that took.

    The log is left without paths of this machine and without its timing, so that it can be published.

    :param base: the environment to start from.
    :raises KitError: Model Optimizer fails, or leaves a file out.
    """
    folder = onnx_path.parent / "ir"
    folder.mkdir(exist_ok=True)
    log = folder / LOG
    usage = child.run(
        command(python, onnx_path),
        env=environment(base),
        cwd=onnx_path.parent,
        log=log,
        what="IR by Model Optimizer",
        tick=tick,
        inherit=inherit,
    )
    stem = onnx_path.with_suffix("").name
    missing = [name for name in files(stem) if not (onnx_path.parent / name).is_file()]
    if missing:
        raise KitError(
            f"Model Optimizer left out {', '.join(missing)}. Its last lines:\n{child.tail(log)}",
            where=f"log: {paths.shown(log)}",
            hint="Its last lines say why.",
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    # Longest first: the environment's folder usually lies inside the checkout.
    for name, path in (
        ("<venv>", python.parent.parent),
        ("<tree>", onnx_path.parent),
        ("<kit>", paths.REPOSITORY),
    ):
        if path.is_absolute():
            text = text.replace(str(path), name)
    log.write_text(_VOLATILE.sub("", text), encoding="utf-8")
    return usage

"""ONNX to OpenVINO IR with Model Optimizer."""

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..artifact import trees
from ..core import child, digests, paths, surroundings
from ..core.errors import KitError
from .optimizers import DEFAULT, Optimizer

_VOLATILE = re.compile(
    r"^\[ SUCCESS \] (Total execution time|Memory consumed).*\n|^It's been a while.*\n", re.M
)


_FALLBACK = "Using fallback to produce IR"
"""Words of 2021.4 when its last step, the runtime's own transformations, has failed.

It then leaves the IR as it was before that step and ends as if nothing had happened.
"""


def command(python: Path, onnx_path: Path, optimizer: Optimizer = DEFAULT) -> List[str]:
    """Return the command that converts ``onnx_path``; it writes into ``ir`` below its working directory.

    :param python: the interpreter that has the optimizer.
    """
    return [*optimizer.command(python), "--input_model", onnx_path.name, "--output_dir", "ir"]


def key(optimizer: Optimizer = DEFAULT) -> Dict[str, Any]:
    """Return what an IR depends on beside its ONNX file, as JSON.

    :raises KitError: the optimizer's lock cannot be read.
    """
    return {
        "command": command(Path("python"), Path("model.onnx"), optimizer)[1:],
        "lock": optimizer.lock_digest(),
        "program": digests.of_file(Path(__file__)),
    }


def environment(base: Dict[str, str]) -> Dict[str, str]:
    """Return Model Optimizer's environment.

    The telemetry of 2022.1 asks for consent in a file in the home folder and waits for an answer where there
    is none; it is given a home of its own in which the answer is no, so that nothing asks and nothing is
    sent.  2021.4 has no telemetry in its lock.

    :param base: the environment to start from.
    """
    home = paths.BUILD / "home"
    consent = home / "intel" / "openvino_telemetry"
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0")
    return {**surroundings.inherited(base), "HOME": str(home), "PYTHONHASHSEED": "0"}


def convert(
    python: Path,
    onnx_path: Path,
    base: Dict[str, str],
    tick: Callable[[Optional[str]], None],
    inherit: Sequence[int] = (),
    optimizer: Optimizer = DEFAULT,
) -> child.Usage:
    """Convert ``onnx_path`` into ``ir/`` beside it and return what that took.

    The log is left without paths of this machine and without its timing, so that it can be published.

    :param python: the interpreter of the kit's environment; an optimizer that has an environment to itself
        runs there.
    :param base: the environment to start from.
    :raises KitError: Model Optimizer fails, or leaves a file or a step out.
    """
    python = optimizer.python(python)
    folder = onnx_path.parent / "ir"
    folder.mkdir(exist_ok=True)
    log = folder / trees.MO_LOG
    usage = child.run(
        command(python, onnx_path, optimizer),
        env=environment(base),
        cwd=onnx_path.parent,
        log=log,
        what=f"IR by Model Optimizer {optimizer.name}",
        tick=tick,
        inherit=inherit,
    )
    stem = onnx_path.with_suffix("").name
    missing = [name for name in trees.ir_files(stem) if not (onnx_path.parent / name).is_file()]
    text = log.read_text(encoding="utf-8", errors="replace")
    if missing or _FALLBACK in text:
        raise KitError(
            f"Model Optimizer left out {', '.join(missing) or 'its last step'}."
            f" Its last lines:\n{child.tail(log)}",
            where=f"log: {paths.shown(log)}",
            hint="Its last lines say why.",
        )
    log.write_text(_VOLATILE.sub("", _placeless(text, python, onnx_path.parent)), encoding="utf-8")
    return usage


def _placeless(text: str, python: Path, tree: Path) -> str:
    """Return a log with names in place of this machine's folders."""
    # Longest first: the environment's folder usually lies inside the checkout.
    for name, path in (("<venv>", python.parent.parent), ("<tree>", tree), ("<kit>", paths.REPOSITORY)):
        if path.is_absolute():
            # The folder as the kit calls it, and as a program finds it that asks where it is.
            for form in (str(path), str(path.resolve())):
                text = text.replace(form, name)
    return text

"""Write a tree's QDQ file and check it; :func:`convert_apart` runs this module as a process."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..core import child, files, machine, paths
from ..model.onnx_model import Model
from ..verify.checks import Check
from ..verify.measuring import limit_memory
from .file_checks import Facts, check_file
from .qdq import convert_to_qdq


def convert_apart(
    source: Path, target: Path, tick: Callable[[Optional[str]], None]
) -> Tuple[List[Check], Facts]:
    """Write the QDQ form of an ONNX file to ``target``; return its checks and what was measured.

    :raises KitError: the file cannot be converted, or the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="qdq-") as name:
        result = Path(name) / "result.json"
        child.run_child(
            [str(paths.VENV_PYTHON), "-m", __name__, str(source), str(target), str(result)],
            env={**machine.inherit_variables(os.environ), "PYTHONPATH": str(paths.REPOSITORY)},
            cwd=Path(name),
            log=Path(name) / "log",
            what="making the QDQ file",
            tick=tick,
        )
        content: Dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return [Check(**check) for check in content["checks"]], content["facts"]


def _answer(source: str, target: str, result: str) -> int:
    limit_memory()
    model = Model(Path(source))
    child.report_step("quantizing")
    _write(model, Path(target))
    checks, facts = check_file(model, Path(target))
    content = {"checks": [vars(check) for check in checks], "facts": facts}
    files.write_text(Path(result), json.dumps(content))
    return 0


def _write(model: Model, target: Path) -> None:
    target.write_bytes(convert_to_qdq(model).SerializeToString())


if __name__ == "__main__":
    sys.exit(child.run_body(_answer, *sys.argv[1:]))

"""The steps of a job, and what is said before they run."""

import os
from pathlib import Path
from typing import Tuple

import pytest

from launch.build import program
from launch.build.jobs import Job
from launch.core import machine
from launch.core.progress import Progress
from launch.qa import arguments
from launch.sources.source import Fork
from launch.vscode.invocation import Invocation


def run(folder: Path, fast: bool = True, *words: str, **env: str) -> None:
    """Run a job of upstream's script with a shell script in the interpreter's place."""
    python = folder / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    argv = ["--model_name_or_path=m", f"--output_dir={folder}", "--nncf_config=n", "--train_file=t", *words]
    invocation = Invocation(str(python), ("run_qa.py",), tuple(argv), dict(env), str(folder))
    given = arguments.parse_arguments("run_qa.py", argv)
    job = Job("n", invocation, "", [], Fork(fast), None, given, None)
    with Path(os.devnull).open("w") as nowhere:
        program.run_job(job, "test", "a test", Progress("", None), nowhere.fileno())


@pytest.mark.parametrize(
    ("processor", "fast", "words", "compiler", "said"),
    [
        ("AMD EPYC", True, ("--to_onnx=m.onnx",), "", True),
        ("AMD EPYC", True, ("--to_onnx=m.onnx",), "c++", False),
        ("AMD EPYC", False, ("--to_onnx=m.onnx",), "", False),
        ("AMD EPYC", True, ("--do_eval", "--validation_file=v"), "", False),
        ("Intel(R) Xeon(R)", True, ("--to_onnx=m.onnx",), "", False),
    ],
)
def test_that_a_compiler_would_help_is_said_where_it_would(
    processor: str,
    fast: bool,
    words: Tuple[str, ...],
    compiler: str,
    said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(machine, "read_processor", lambda: processor)
    tools = tmp_path / "tools"
    tools.mkdir()
    if compiler:
        (tools / compiler).symlink_to("/bin/sh")
    run(tmp_path, fast, *words, PATH=str(tools), CXX="")
    assert ("no C++ compiler" in capsys.readouterr().err) == said

"""What `make command` prints is run by a shell, in a checkout whose path has everything a path can have."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

from launch.core import hidden, paths
from launch.vscode.launch_file import read_launch_file
from launch.vscode.resolve import Variables, resolve_configuration

from ..conftest import run

FOLDERS = {
    "spaces": "two  words ",
    "quotes": 'it\'s "quoted" `id` \\ $HOME $(id) ${HOME} $$',
    "lines": "\nline one\nline two \\\n",
    "signs": "-a=b;c&d|e<f>g*h?[i]{j,k}~#l!m(n)%o",
    "other letters": "naïve 模型 🤗",
    "no UTF-8": os.fsdecode(b"caf\xe9"),
}

VALUES = [
    "",
    "two  words",
    "it's",
    'a "quoted" word',
    "line one\nline two\n",
    "$HOME $(id) `id` !! $$",
    "back\\slash \\n \\",
    "*?[a-z]{a,b}~;b&c|d>e<f#g",
    "naïve 模型 🤗\ttab",
]

DUMP = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]))
"""

OWN = sorted(hidden.OWN - {"PATH", "PYTHONPATH", "PYTHONHASHSEED"})

OPTIONS = ("--cache_dir", "--train_file", "--validation_file", "--nncf_config", "--to_onnx", "--config_name")


KEY = """
import json
from launch.build import jobs, rules
from launch.core import paths
from launch.model import variants
from launch.sources.source import Registry
for variant in variants.VARIANTS.values():
    tree = jobs.load_tree(str(paths.LAUNCH_FILE), variant, rules.Selection(), Registry())
    print(json.dumps(jobs.make_onnx_key(tree)))
"""


def test_a_checkout_reached_through_a_link_has_the_links_path(tmp_path: Path) -> None:
    """So VS Code has it; what was made is current by either path."""
    clone, link = tmp_path / "the checkout", tmp_path / "the-link"
    for name in ("launch", "patches", ".vscode"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(str(paths.REPOSITORY / name), str(clone / name), ignore=ignored)
    shutil.copy(str(paths.REPOSITORY / "Makefile"), str(clone))
    link.symlink_to(clone, target_is_directory=True)
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def done(*argv: str, folder: Path, **env: str) -> str:
        found = run(argv, cwd=folder, env={"PATH": search, "HOME": str(tmp_path), **env})
        assert found.returncode == 0, found.stderr
        return found.stdout

    words = ("command", "V=evaluate", "SOURCE=registry")
    printed = done("make", "--no-print-directory", *words, folder=link, PWD=str(link))
    assert printed.startswith(f"cd {link} && ")
    assert str(clone) not in printed
    real = done("make", "--no-print-directory", *words, folder=clone, PWD=str(clone))
    assert real.replace(f"'{clone}'", str(clone)).replace("'", "").replace(str(clone), str(link)) == (
        printed.replace("'", "")
    )
    script = str(link / "launch" / "kit.sh")
    assert done(script, "command", "--v=evaluate", "--source=registry", folder=Path("/")) == printed
    # A PWD that is not this folder's says nothing.
    assert done("make", "--no-print-directory", *words, folder=clone, PWD="/") == real
    keys = done(sys.executable, "-c", KEY, folder=link, PWD=str(link))
    assert keys == done(sys.executable, "-c", KEY, folder=clone, PWD=str(clone))
    assert keys.count("${workspaceFolder}") > 5
    assert str(tmp_path) not in keys


@pytest.mark.parametrize("name", list(FOLDERS))
def test_the_printed_command_runs_as_the_file_says(tmp_path: Path, name: str) -> None:
    clone = tmp_path / FOLDERS[name] / "clone"
    shutil.copytree(str(paths.PACKAGE), str(clone / "launch"), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(str(paths.REPOSITORY / "Makefile"), str(clone))
    work = clone / "work folder"
    work.mkdir()
    (clone / "dump.py").write_text(DUMP)
    (clone / "my python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (clone / "my python").chmod(0o755)
    # The kit's own variables are printed with their values; others are referred to, as is the environment.
    others = {f"VALUE{index}": value for index, value in enumerate(VALUES)}
    referred = {f"REFERRED{index}": value for index, value in enumerate(VALUES)}
    named = {name: f"a ${{env:{name}}} b" for name in referred}
    env = {**dict(zip(OWN, VALUES)), **others, **{f"OF_{name}": f"${{env:{name}}}" for name in referred}}
    args = [word for pair in zip(OPTIONS, VALUES[1:]) for word in pair]
    args += list(named.values())
    args += ["--model_name_or_path", "${workspaceFolder}/model", "--output_dir=${workspaceFolder}/out"]
    body = {
        "name": "dump",
        "type": "debugpy",
        "request": "launch",
        "python": "${workspaceFolder}/my python",
        "program": "${workspaceFolder}/dump.py",
        "cwd": "${workspaceFolder}/work folder",
        "args": args,
        "console": "internalConsole",  # no shell, which would not take each of these
        "env": {**env, "WORKSPACE": "${workspaceFolder}", "GONE": None},
    }
    (clone / "small.json").write_text(json.dumps({"configurations": [body]}))
    # No make variables and nothing of these tests' own: what a person's shell would have.
    base: Dict[str, str] = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "GONE": "inherited",
        "KEPT": "inherited",
        **referred,
    }
    printed = subprocess.run(
        ["make", "--no-print-directory", "command", "V=dump", "LAUNCH=small.json", "SOURCE=registry"],
        cwd=str(clone),
        env=base,
        capture_output=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr

    def done(*argv: object, **more: Any) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(argv, cwd="/", env=base, capture_output=True, check=False, **more)

    without = done("/bin/sh", "-c", printed.stdout)
    assert without.returncode != 0
    assert not without.stdout
    assert b"VALUE1: its value is in the launch file" in without.stderr
    base.update(others, WORKSPACE=str(clone))
    # As text for the shell, and as `make command | sh`.
    shells = [shell for shell in ("/bin/sh", "bash") if shutil.which(shell)]
    runs = [done(shell, "-c", printed.stdout) for shell in shells]
    runs += [done(shell, input=printed.stdout) for shell in shells]
    (configuration,) = read_launch_file(clone / "small.json").configurations
    invocation = resolve_configuration(Variables(configuration, clone, base), "none")
    for ended in runs:
        assert ended.returncode == 0, ended.stderr
        argv, cwd, environ = json.loads(ended.stdout)
        assert argv == [str(clone / "dump.py"), *invocation.args]
        assert cwd == str(work) == invocation.cwd
        # Shells keep some variables of their own.
        for ours in ("PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"):
            environ.pop(ours, None)
        assert environ == invocation.environment(base)
        assert environ["WORKSPACE"] == str(clone)
        assert "GONE" not in environ

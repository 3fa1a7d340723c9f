"""Commands of launch/README.md, "Without a network": in a namespace without interfaces, from uv's cache."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from launch.setup import installer

from ..conftest import copy_checkout, run

ALONE = ["unshare", "--map-root-user", "--net"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not shutil.which("unshare") or subprocess.run([*ALONE, "true"], capture_output=True).returncode != 0,
        reason="no network namespace can be made here",
    ),
]


def test_from_a_warm_cache_setup_needs_no_network(tmp_path):
    checkout = copy_checkout(tmp_path / "kit")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uv").symlink_to(Path(installer.find_uv()).resolve())
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "UV_OFFLINE": "1"}
    words = ["make", "--no-print-directory", "setup", "SOURCE=registry", "INPUT=hub"]
    reached = run([*ALONE, "python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 9), 1)"])
    assert "unreachable" in reached.stderr, "there is no interface, not even to itself"
    done = run([*ALONE, *words], cwd=checkout, env=env)
    assert done.returncode == 0, done.stderr
    assert "fetching uv" not in done.stderr
    assert (checkout / "build/src/registry/nncf").is_dir()
    python = str(checkout / ".venv/bin/python")
    assert run([python, "-I", "-c", "import torch; print(torch.__version__)"]).stdout.startswith("1.9.1")


def test_with_nothing_here_the_error_says_how_it_goes(tmp_path):
    """No uv, no cache, no index: three parts, at once, and nothing half made."""
    checkout = copy_checkout(tmp_path / "kit")
    words = ["make", "--no-print-directory", "setup", "SOURCE=registry"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = run([*ALONE, *words], cwd=checkout, env=env)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in (
        "error: uv",
        "cannot be fetched",
        "the public index: ",
        "UV_DEFAULT_INDEX",
        "launch/README.md",
    ):
        assert word in done.stderr, done.stderr
    assert not (checkout / ".venv").exists()

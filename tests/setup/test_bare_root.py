"""A machine with git, make and python3 alone, and nothing else: README's commands work there.

``KIT_BARE_V=<variant>``: that tree at full size and ``make test`` as well, which take an hour.
"""

import os
import shutil
import subprocess
import time

import pytest

from . import bare_root
from .bare_root import clone, words

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(bare_root.why_not()), reason=bare_root.why_not() or "-"),
]

FULL = os.environ.get("KIT_BARE_V", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare") / "root"
    try:
        with bare_root.Root(folder).mounted() as made:
            yield made
    finally:
        bare_root.remove(folder)


def test_nothing_else_is_there(root):
    for missing in ("pip", "pip3", "python", "python3.8", "uv", "c++", "g++", "gcc", "cc", "curl", "wget"):
        assert root.run(f"command -v {missing}").returncode != 0, missing
    for module in ("pip", "ensurepip", "distutils.core"):
        assert root.run(f"python3 -c 'import {module}'").returncode != 0, module


def test_readmes_commands(root, tiny_model):
    """Setup with what it says of itself; then a tree of the two-layer model, or README's at full size."""
    clone(root, "/root/kit")
    shutil.copytree(str(tiny_model), str(root.folder / "root/model"))
    started = time.monotonic()
    done = root.run("make setup SOURCE=registry", at="/root/kit")
    print(f"setup took {time.monotonic() - started:.0f} s\n{done.stderr}")
    assert done.returncode == 0, words(done)
    first = next(line for line in done.stderr.splitlines() if "to download" in line)
    assert "uv, 18.0 MB; CPython 3.8, 30.0 MB; packages, 1.10 GB" in first
    assert first in done.stderr.splitlines()[:2], "before anything is fetched"
    listed = ["fetching uv", "fetching CPython 3.8", "making .venv", "installing", "trying the environment"]
    last = next(line for line in done.stderr.splitlines() if ".venv is ready" in line)
    assert all(part in last for part in listed)
    again = root.run("make setup SOURCE=registry", at="/root/kit")
    assert "up to date" in again.stderr
    # Nothing but the checkout and uv's own folders.
    kept = {str(path.relative_to(root.folder)) for path in (root.folder / "root").rglob("*")}
    kept = {name for name in kept if not name.startswith(("root/kit", "root/model"))}
    assert {"/".join(name.split("/")[:4]) for name in kept} <= {
        *("root/.cache", "root/.cache/uv", "root/.local", "root/.local/share", "root/.local/share/uv"),
        *("root/.bashrc", "root/.profile"),
        *(name for name in kept if name.startswith("root/.cache/uv/")),
    }
    sample = "/root/kit/launch/sample"
    small = f"INPUT=files MODEL=/root/model TRAIN_FILE={sample}/train.json SOURCE=registry"
    variant = FULL or "90pc_sparse-02_head-0512_ffnn"
    started = time.monotonic()
    done = root.run(f"make variant V={variant} {'' if FULL else small}", at="/root/kit")
    print(f"variant took {time.monotonic() - started:.0f} s\n{done.stderr}")
    assert done.returncode == 0, words(done)
    assert (root.folder / "root/kit/gen_hybrid_sparse" / variant / "SHA256SUMS").exists()
    if FULL:
        done = root.run("make test", at="/root/kit")
        print(done.stdout[-3000:])
        assert done.returncode == 0, words(done)


def set_up(root, to, user="root", before="", **variables):
    """Clone and set up, remove the clone, and return what make said."""
    clone(root, to, user)
    try:
        return root.run(f"{before} make setup SOURCE=registry", at=to, user=user, **variables)
    finally:
        shutil.rmtree(str(root.folder / to[1:]))


CASES = {
    "no home": {"HOME": None},
    "an empty PATH but for two": {"path": "/usr/bin:/bin"},
    "a home that cannot be written to": {"to": "/home/person/kit", "user": "person", "HOME": "/usr"},
    "a user who is not root": {"to": "/home/person/kit", "user": "person"},
    "umask 077": {"before": "umask 077 &&"},
    "a path with other letters": {"to": "/root/naïve-模型"},
    "a path with other letters, in C": {"to": "/root/naïve-模型", "LC_ALL": "C"},
}


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_odd_there(root, name):
    case = dict(CASES[name])
    case.setdefault("to", "/root/odd")
    before = root.folder / "usr/.cache"
    done = set_up(root, path=case.pop("path", "/usr/bin:/bin"), **case)
    assert done.returncode == 0, words(done)
    assert not before.exists()
    assert not (root.folder / "root/kit/.uv_cache").exists()


def test_a_home_on_another_filesystem(root):
    image, home = root.folder / "srv/home.img", root.folder / "home/other"
    home.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 30)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(home)], check=True)
    try:
        done = set_up(root, "/root/odd", HOME="/home/other")
        assert done.returncode == 0, words(done)
    finally:
        subprocess.run(["umount", str(home)], check=True)
        image.unlink()


def test_a_proxy_that_leads_nowhere(root):
    started = time.monotonic()
    done = set_up(root, "/root/odd", HTTPS_PROXY="http://127.0.0.1:9", HOME="/root/none")
    assert done.returncode == 2, words(done)
    assert time.monotonic() - started < 60
    assert "Traceback" not in done.stderr
    for word in ("error: uv", "cannot be fetched", "the proxy that HTTPS_PROXY names", "to do: "):
        assert word in done.stderr, words(done)


def test_killed_at_any_moment_it_works_the_next_time(root):
    clone(root, "/root/odd")
    try:
        for seconds in (0.5, 2, 4, 8):
            root.run(f"timeout --signal=KILL {seconds} make setup SOURCE=registry", at="/root/odd")
        done = root.run("make setup SOURCE=registry", at="/root/odd")
        assert done.returncode == 0, words(done)
    finally:
        shutil.rmtree(str(root.folder / "root/odd"))


def test_ubuntu():
    pytest.skip("its packages would have to be had: debootstrap with Ubuntu's mirror and keyring")

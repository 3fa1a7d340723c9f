"""The patch set `fast`: runs with it and without it give the same bytes."""

import os
import shutil
from pathlib import Path
from typing import Dict

import pytest

from launch.artifact import trees
from launch.core import files, machine
from launch.sources.source import Registry

from ..conftest import HYBRID, UNSTRUCTURED, Kit, call
from ..loaded import Loaded


def without_compiler(folder: Path) -> Dict[str, str]:
    """Return an environment whose PATH leads to a new folder with git and no compiler."""
    folder.mkdir()
    (folder / "git").symlink_to(shutil.which("git") or "")
    env = {**os.environ, "PATH": str(folder), "CXX": ""}
    assert not machine.has_compiler(env)
    return env


@pytest.fixture(scope="module")
def without(built: Kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the trees, made without the set and a compiler; the derived tree is as it was afterwards."""
    kit = Kit(tmp_path_factory.mktemp("without"), built.model)
    try:
        for name in (HYBRID, UNSTRUCTURED):
            done = kit.run("variant", name, env=without_compiler(kit.folder / "tools"), fast=0)
            assert done.returncode == 0, done.stderr
            assert "without the fast set" in done.stderr
    finally:
        assert call(["setup", "--source=registry", "--fast=1"]).returncode == 0
    return kit.out


@pytest.mark.long
@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED])
def test_the_set_changes_no_byte(built: Kit, without: Path, name: str) -> None:
    for file in trees.list_onnx_files(f"{name}-8bit"):
        assert files.digest_file(without / name / file) == files.digest_file(built.tree(name) / file), file


def test_the_set_is_on_by_default() -> None:
    fast = [patch for patch in Registry().series()["nncf"] if patch.fast]
    assert len(fast) >= 6


THRESHOLD = """
import torch
from nncf.torch.sparsity.magnitude.algo import MagnitudeSparsityController as Controller
from nncf.torch.sparsity.magnitude.functions import normed_magnitude

class Info:
    def __init__(self, weight):
        self.module = torch.nn.Module()
        self.module.weight = torch.nn.Parameter(weight)

controller = Controller.__new__(Controller)
controller._weight_importance_fn = normed_magnitude
torch.manual_seed(0)
ties = torch.randint(-3, 4, (40, 30)).float()
for weights in (
    [torch.randn(64, 32), torch.randn(128, 64)],
    [ties, torch.randn(7, 5)],
    [torch.zeros(3, 4), torch.ones(5, 5)],  # the norm of zeros is zero: not a number
    [torch.randn(1, 1)],
    [torch.full((4, 4), 1e-42), torch.randn(4, 4)],  # subnormal
):
    infos = [Info(weight) for weight in weights]
    everything = torch.cat([normed_magnitude(weight).view(-1) for weight in weights]).sort()[0]
    for level in (0, 0.1, 0.5, 0.77, 0.9, 0.999, 0.99999):
        wanted = everything[int((everything.numel() - 1) * level)].item()
        found = controller._select_threshold(level, infos)
        assert found == wanted or found != found and wanted != wanted, (weights, level, found, wanted)
assert controller._select_threshold(0.5, []) == 0.0
"""


def test_the_threshold_is_that_of_a_sort(loaded: Loaded) -> None:
    """Bit for bit: with ties, values that are no number, subnormal ones, and a single weight."""
    _in_nncf(loaded, THRESHOLD)


needs_compiler = pytest.mark.skipif(not machine.has_compiler(os.environ), reason="there is no compiler")

KERNELS = """
from nncf.torch.dynamic_graph import ordered_products as products
processor = products._processor()
products._processor = lambda: {**processor, "vendor_id": "AuthenticAMD"}
"""
"""Has the kernels compiled on Intel's processors, too."""

PRODUCTS = """
import ctypes, numpy, torch
library, numbers = products._compile(), products._numbers

def in_order(a, b):
    a, b = a.numpy(), b.numpy()
    depth = a.shape[-1]
    blocks = [range(k, min(k + 112, depth)) for k in range(0, depth, 112)]
    if depth % 112:
        blocks.insert(0, blocks.pop())
    total = None
    for block in blocks:
        part = numpy.zeros((*a.shape[:-1], b.shape[-2]), numpy.float32)
        for k in block:
            part += a[..., :, None, k] * b[..., None, :, k]
        total = part if total is None else total + part
    return torch.from_numpy(total)

torch.manual_seed(0)
for batch, rows, columns, depth in (
    ((1, 1), 1, 1, 1),
    ((1, 1), 12, 32, 112),
    ((1, 1), 193, 33, 111),
    ((1, 1), 400, 70, 113),
    ((1, 1), 5, 64, 1024),
    ((2, 3), 37, 31, 300),
    ((2, 2), 384, 384, 64),
):
    a = torch.randn(batch[0], rows, batch[1], depth).transpose(1, 2)
    b = torch.randn(*batch, depth, columns).transpose(2, 3)
    expected = in_order(a, b)
    for width in (16, 8):
        for threads in (1, 3) if width <= products._width() else ():
            out = torch.full(expected.shape, 7.0)
            operands = numbers(a.data_ptr(), *a.stride()), numbers(b.data_ptr(), *b.stride())
            sizes = numbers(*batch, rows, columns, depth)
            assert library.product(ctypes.c_void_p(out.data_ptr()), *operands, sizes, width, threads) == 0
            assert torch.equal(out, expected), (batch, rows, columns, depth, width, threads)
"""


@needs_compiler
def test_products_are_summed_in_order(loaded: Loaded) -> None:
    """Bit for bit, with registers of each width, incomplete tiles and blocks, and operands of any strides."""
    _in_nncf(loaded, KERNELS + PRODUCTS)


CHOICE = f"""{KERNELS}
import itertools
import sys
import time
from pathlib import Path
import torch
from torch.nn.functional import linear
import nncf.torch

products._place = lambda: Path(sys.argv[1])
torch.set_grad_enabled(False)
wide = bool(products._load())
linear, matmul = (getattr(operator, "_original_op", operator) for operator in (linear, torch.matmul))
functions, threads = products._FUNCTIONS, str(torch.get_num_threads())
x, weight, bias = torch.randn(3, 64, 128), torch.randn(256, 128), torch.randn(256)
q = torch.randn(2, 32, 3, 8).transpose(1, 2)
k = q.transpose(2, 3)

def asked(operator, name, args, **kwargs):
    "How often torch is asked for three products of one shape; all three have its bits."
    calls = []
    def counted(*args, **kwargs):
        calls.append(args)
        return operator(*args, **kwargs)
    for _ in range(3):
        found = products.choose(counted, name, args, kwargs)(*args, **kwargs)
        assert torch.equal(found.view(torch.int32), operator(*args, **kwargs).view(torch.int32))
    return len(calls)

def ours(*args, **kwargs):
    result = functions["linear"](*args, **kwargs)
    return linear(*args, **kwargs) if result is None else result
"""

SHAPES = """
if not wide:
    raise SystemExit
def other(*args):
    return linear(*args) * (1 + 2 ** -20)

shifted = torch.randn(x.numel() + 1)[1:].view(x.shape)
state = torch.get_rng_state()
products._known = {threads: True}
assert asked(ours, "linear", (x * 0, weight), bias=bias) == 3, "zeros say nothing"
assert len(products._known) == 1
assert asked(ours, "linear", (x, weight), bias=bias) == 1
assert asked(ours, "linear", (x * 0, weight), bias=bias) == 0, "it is known by now"
products._known = {threads: True}
assert asked(other, "linear", (x, weight, bias)) == 3
assert len(products._known) == 2
for args in (
    (x.double(), weight.double(), bias.double()),
    (x[0], weight, bias),
    (x[:1, :1], weight, bias),
    (x[:, ::2], weight, bias),
    (x[:, :51].contiguous(), weight, bias),
    (x[:1].expand(3, 64, 128), weight, bias),
    (x[:, :0], weight, bias),
    (shifted, weight, bias),
):
    products._known = {threads: True}
    assert asked(ours, "linear", args) == 3, args[0].shape
for args in ((q, k[:1]), (q[0], k[0])):
    assert asked(matmul, "matmul", args) == 3
assert asked(matmul, "matmul", (q, k), out=torch.empty(2, 3, 32, 32)) == 3
assert asked(torch.sigmoid, "sigmoid", (q,)) == 3
for args in ((q, q), (x, weight[:, :-1])):  # what torch refuses
    name, operator = ("matmul", matmul) if args[0] is q else ("linear", linear)
    try:
        products.choose(operator, name, args, {})(*args)
    except RuntimeError as error:
        assert "size" in str(error) or "shape" in str(error), error
    else:
        raise AssertionError(args[1].shape)
products._known = {threads: False}
assert asked(ours, "linear", (x, weight, bias)) == 3
products._known = {threads: True}
with torch.enable_grad():
    assert asked(ours, "linear", (x, weight, bias)) == 3
assert torch.equal(torch.get_rng_state(), state)
"""


@needs_compiler
def test_products_with_other_bits_stay_with_torch(loaded: Loaded, tmp_path: Path) -> None:
    """The order of summation is looked at, for each shape, and nothing is assumed of the machine."""
    _in_nncf(loaded, CHOICE + SHAPES, tmp_path / "decided")


SPEED = """
state = torch.get_rng_state()
started = time.process_time()
if wide:
    products._is_worth_it()
assert time.process_time() - started < 0.5 * torch.get_num_threads()
assert torch.equal(torch.get_rng_state(), state)

class Clock:
    "Ours takes one second each time, and torch's as many as are given."
    def __init__(self, theirs):
        self.readings = itertools.cycle([0, 1, 0, theirs])
    def perf_counter(self):
        return next(self.readings)
products.time = Clock(1)
assert not wide or not products._is_worth_it(), "the same time"
products.time = Clock(2)
found = wide and products._is_worth_it()
operands = torch.randn(1, 192, 1024), torch.randn(1024, 1024)
assert not found or products._same_bits(products._linear(*operands), torch._C._nn.linear(*operands))
for operator, name, operands in (
    (linear, "linear", (x, weight, bias)), (linear, "linear", (x, weight)), (matmul, "matmul", (q, k))
):
    assert asked(operator, name, operands) == (1 if found else 3)
"""


@needs_compiler
def test_products_that_are_not_faster_stay_with_torch(loaded: Loaded, tmp_path: Path) -> None:
    _in_nncf(loaded, CHOICE + SPEED, tmp_path / "decided")


WANTED = """
import os
import sys
from pathlib import Path
import torch
import nncf.torch
from nncf.torch.dynamic_graph import ordered_products as products

folder = products._FOLDER = Path(sys.argv[1])
AMD, INTEL = ({"vendor_id": name, "flags": "fpu avx2 avx512f"} for name in ("AuthenticAMD", "GenuineIntel"))
operator = torch.nn.functional.linear._original_op
args = torch.randn(2, 64, 128), torch.randn(256, 128)
torch.set_grad_enabled(False)

def compiles(processor, **variables):
    "Whether a compiler is started; products stay with torch where none gives anything."
    os.environ.update(variables)
    products._processor = lambda: processor
    products._load.cache_clear()
    assert products.choose(operator, "linear", args, {}) is operator
    return bool(list(folder.glob("called")) and not (folder / "called").unlink())

compiler = folder / "c++"
compiler.write_text(f"#!/bin/sh\\n: > {folder}/called\\nexit 1\\n")
compiler.chmod(0o755)
path = f"{folder}:/usr/bin:/bin"
assert compiles(AMD, PATH=path)
assert compiles({**AMD, "flags": "avx avx2"}, PATH=path)
assert compiles(AMD, PATH="", CXX=f"{compiler} -pipe")
for processor in (INTEL, {**AMD, "flags": "fpu sse2"}, {"flags": "avx2"}, {}):
    assert not compiles(processor, PATH=path), processor
for compiler in ("", "none", "'"):
    assert not compiles(AMD, PATH=str(folder / "empty"), CXX=compiler)
products._FOLDER = folder / "file" / "below"
(folder / "file").touch()
assert not compiles(AMD, PATH=path, CXX="")
"""


def test_a_compiler_is_started_only_where_products_would_be_faster(loaded: Loaded, tmp_path: Path) -> None:
    """The processor is asked first; without compiler, or where it fails, torch computes, and nothing ends."""
    _in_nncf(loaded, WANTED, tmp_path)


COMPILED_ONCE = """
import os
import sys
from pathlib import Path
from nncf.torch.dynamic_graph import ordered_products as products

products._FOLDER = Path(sys.argv[1]) / "new"
product = products._compile().product
assert list(products._FOLDER.iterdir()) == [products._library()]
made = products._library().stat().st_mtime_ns
os.environ["PATH"] = ""
products._compile()
assert products._library().stat().st_mtime_ns == made
"""


@needs_compiler
def test_the_file_is_compiled_once_and_again_where_it_is_not_whole(loaded: Loaded, tmp_path: Path) -> None:
    _in_nncf(loaded, COMPILED_ONCE, tmp_path)
    (library,) = (tmp_path / "new").iterdir()
    whole = library.stat().st_size
    library.write_bytes(b"")
    _in_nncf(loaded, COMPILED_ONCE, tmp_path)
    assert library.stat().st_size == whole


DECIDED = """
products._is_worth_it = lambda: True
assert asked(ours, "linear", (x, weight)) == (1 if wide else 3)
"""

REMEMBERED = """
def undecided():
    raise AssertionError("it is decided anew")
products._is_worth_it = undecided
assert asked(ours, "linear", (x, weight)) == (0 if wide else 3)
"""

ANEW = """
decisions = []
products._is_worth_it = lambda: decisions.append(1) or False
assert asked(ours, "linear", (x, weight)) == 3
assert decisions == [1] * wide
"""


@needs_compiler
def test_a_machine_remembers_what_was_decided(loaded: Loaded, tmp_path: Path) -> None:
    """A process decides nothing that one before it has; what is not whole, or another machine's, is not."""
    remembered = tmp_path / "decided.json"
    _in_nncf(loaded, CHOICE + DECIDED, remembered)
    if not remembered.exists():
        pytest.skip("there is no kernel for this processor")
    assert list(tmp_path.iterdir()) == [remembered]
    content = remembered.read_text()
    _in_nncf(loaded, CHOICE + REMEMBERED, remembered)
    assert remembered.read_text() == content
    others = [content[:-9], "[]", "{}", "", "\0", content.replace(": true", ": 1")]
    others.append(content.replace('"machine": "', '"machine": "0'))
    again = f"""
for content in {others!r}:
    products._place().write_text(content)
    products._known = None
    {ANEW.strip().replace(chr(10), chr(10) + "    ")}
"""
    _in_nncf(loaded, CHOICE + again, remembered)
    remembered.write_text(content)
    # Other variables of MKL's can mean other kernels.
    _in_nncf(loaded, CHOICE + ANEW, remembered, MKL_CBWR="COMPATIBLE")


def _in_nncf(loaded: Loaded, script: str, *arguments: Path, **variables: str) -> None:
    """Run a script on the derived tree of the releases."""
    done = loaded.run("nncf.torch", ["-c", script, *map(str, arguments)], Path("/"), **variables)
    assert done.returncode == 0, done.stderr

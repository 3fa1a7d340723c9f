"""NNCF's functions that quantize: they are not compiled, and have the bits of the compiled ones."""

import os
import sys
from pathlib import Path

import pytest

from launch.core import machine

from ..conftest import run

IMPORT = """
import torch
import nncf.torch
from nncf.torch.quantization.extensions import QuantizedFunctionsCPU as functions
from nncf.torch.quantization.quantize_functions import symmetric_quantize

scale = torch.tensor([1.0], requires_grad=True)
input = torch.tensor([-2.0, -1.0, 0.25, 1.5], requires_grad=True)
output = symmetric_quantize(input, 256, -128, 127, scale, 0.0)
assert torch.allclose(output, torch.tensor([-128 / 127, -1.0, 32 / 127, 1.0]))
output.sum().backward()
assert input.grad.tolist() == [0, 1, 1, 0]
assert abs(scale.grad.item() - (1 - 128 / 127 + (32 / 127 - 0.25) * 127 / 255)) < 1e-6
"""


def test_nncf_compiles_nothing(derived_source: Path, tmp_path: Path) -> None:
    """Not even with neither a compiler nor ninja to be found, and no home."""
    env = {
        "PATH": "",
        "HOME": "/nonexistent",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
        "PYTHONPATH": str(derived_source),
    }
    done = run([sys.executable, "-c", IMPORT], env=env)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "extensions").exists()


SAME_BITS = """
import itertools
import torch
import nncf.torch
from nncf.torch.quantization import extensions, functions_cpu as ours

theirs = extensions.QuantizedFunctionsCPULoader.load()
assert extensions.QuantizedFunctionsCPU is ours
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}

def check(input, low, span, levels=256, lowest=-128, highest=127, gradient=None):
    def same(one, other):
        assert one.stride() == other.stride()
        kind = BITS[one.dtype]
        assert torch.equal(one.contiguous().view(kind), other.contiguous().view(kind)), (input, low, span)
    forward = input, low, span, levels
    same(ours.Quantize_forward(*forward), theirs.Quantize_forward(*forward))
    gradient = torch.randn_like(input) if gradient is None else gradient
    for asymmetric in (False, True):
        backward = gradient, *forward, lowest, highest, asymmetric
        both = ours.Quantize_backward(*backward), theirs.Quantize_backward(*backward)
        for place, pair in enumerate(zip(*both)):
            if asymmetric or place != 1:  # whose memory is not set
                same(*pair)

torch.manual_seed(0)
inf, nan = float("inf"), float("nan")
odd = [0.0, -0.0, 1e-42, -1e-42, 1.17e-38, 3.4e38, -3.4e38, inf, -inf, nan, 1.0, -1.0, 0.5, -0.5, 0.1, 1 / 3]
values = torch.cat([torch.tensor(odd), torch.randn(48)])
lows = [-1.0, 0.0, -0.0, 1e-42, -1e-42, -inf, nan, -128 / 127, 5.0]
for low, span in itertools.product(lows, [1.0, 2.0, 255 / 127, 1e-42, 0.0, inf, nan, 3e38, 1e-30]):
    for input in (values.view(8, 8), values[:1]):
        check(input, torch.tensor([low]), torch.tensor([span]))
square = values.view(8, 8)
for shape in ((8, 1), (1, 8)):  # per channel of the output, or of the input
    check(square, values[:8].view(shape), values[8:16].view(shape).abs())
    check(square, -torch.rand(shape), 2 * torch.rand(shape), 255, -127, 127, square.t().contiguous())
    check(square.t(), -torch.rand(shape), 2 * torch.rand(shape), 255, -127, 127, square)
for levels, lowest, highest in ((256, 0, 255), (256, -128, 127), (255, -127, 127), (16, -8, 7), (2, 0, 1)):
    ties = torch.arange(-2 * levels, 2 * levels + 1) * 0.5
    low, span = torch.tensor([float(lowest)]), torch.tensor([float(highest - lowest)])
    check(ties, low, span, levels, lowest, highest)
    check(ties.double(), low.double() / 3, span.double() / 3, levels, lowest, highest)
weight, activation = torch.randn(1024, 4096) / 50, torch.randn(1, 384, 1024)
for input, largest in (
    (weight, weight.abs().amax(1, keepdim=True)),
    (weight, weight.abs().max().view(1)),
    (activation, activation.abs().amax((0, 1), keepdim=True)),
    (activation, activation.abs().max().view(1)),
):
    check(input, largest * -128 / 127, largest * 255 / 127)
"""


@pytest.mark.long
@pytest.mark.skipif(not machine.has_compiler(os.environ), reason="there is no compiler")
def test_the_bits_are_those_of_the_compiled_functions(derived_source: Path, tmp_path: Path) -> None:
    """Forward and backward, of odd values, ties and full size; to compile what is compared takes a minute."""
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # ninja's
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_EXTENSIONS_DIR": str(tmp_path),
        "PYTHONPATH": str(derived_source),
    }
    done = run([sys.executable, "-c", SAME_BITS], env=env)
    assert done.returncode == 0, done.stderr

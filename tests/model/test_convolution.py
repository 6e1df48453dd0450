"""Convolutions in bfloat16 give the gradients of float32 but for rounding, whatever lay in the memory that they use."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtids_dist.model import MTIDS
from mtids_dist.model.convolution import Conv3d, conv3d

SEED, TRIES = 29, 20


def leave_nan_behind() -> None:
    """In memory that the next tensors may be given."""
    for size in (100, 1_000, 5_000, 20_000, 60_000):
        torch.full((size,), float("nan"))


@pytest.mark.parametrize("side", [1, 2, 4])
def test_gradients_in_bfloat16_are_those_of_float32(side: int) -> None:
    """Maps of 2x2x2 are what a ResNet makes of 64^3, and what torch's own kernel on a CPU gets wrong now and then."""
    print(f"seed {SEED}")
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(TRIES):
        x = torch.randn(48, 16, side, side, side, generator=generator).bfloat16().requires_grad_()
        weight = (0.1 * torch.randn(16, 16, 3, 3, 3, generator=generator)).bfloat16().requires_grad_()
        leave_nan_behind()
        found = torch.autograd.grad(conv3d(x, weight, padding=1).float().square().sum(), [x, weight])
        wide_x, wide_weight = x.detach().float().requires_grad_(), weight.detach().float().requires_grad_()
        wanted = torch.autograd.grad(conv3d(wide_x, wide_weight, padding=1).square().sum(), [wide_x, wide_weight])
        for mine, exact in zip(found, wanted, strict=True):
            assert (mine.float() - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize("trunk", ["small", pytest.param("resnet10", marks=pytest.mark.slow)])
def test_no_convolution_of_the_network_is_torch_s_own(trunk: str) -> None:
    convolutions = [module for module in MTIDS({"region": 3}, trunk=trunk).modules() if isinstance(module, nn.Conv3d)]
    assert convolutions
    assert all(type(convolution) is Conv3d for convolution in convolutions)

"""Every trunk builds, reads crops of any shape, normalises by group only and lets gradients through."""

from __future__ import annotations

import pytest
import torch
from model_cases import TASKS
from torch import nn

from mtids_dist.model import MTIDS, Trunk

SHAPES = [(1, 32, 32), (2, 17, 20), (3, 32, 32), (1, 1, 1), (16, 16, 16)]


@pytest.fixture(
    scope="module",
    params=[Trunk.SMALL, Trunk.RESNET10, *(pytest.param(t, marks=pytest.mark.slow) for t in (Trunk.RESNET18, Trunk.RESNET50))],
)
def model(request: pytest.FixtureRequest) -> MTIDS:
    torch.manual_seed(0)
    return MTIDS(TASKS, trunk=request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_crops_of_any_shape_work(model: MTIDS, shape: tuple[int, int, int]) -> None:
    logits = model(torch.randn(2, 1, *shape))
    assert {task: tuple(of.shape) for task, of in logits.items()} == {task: (2, classes) for task, classes in TASKS.items()}
    assert all(of.isfinite().all() for of in logits.values())


def test_only_group_norm_normalises(model: MTIDS) -> None:
    """MONAI hands `norm` to the stem of its ResNets only; batch norm would make N ranks differ from one."""
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    assert norms
    assert all(isinstance(module, nn.GroupNorm) for module in norms)
    assert not [name for name, _ in model.named_buffers() if not name.endswith("log_share")], "no running statistics"


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_every_slice_of_a_thin_crop_is_seen(model: MTIDS, slices: int) -> None:
    crops = torch.randn(1, 1, slices, 33, 33, requires_grad=True)
    (grad,) = torch.autograd.grad(model.trunk(crops).square().sum(), crops)
    assert (grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


def test_shortcuts_without_weights_pass_the_gradient_on() -> None:
    """MONAI's shortcut of type A (resnet18) detaches its input, which cuts the trunk's early layers off."""
    torch.manual_seed(0)
    layer = MTIDS(TASKS, trunk="resnet18").trunk.layer2
    for block in layer:
        nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    x = torch.rand(1, 64, 4, 4, 4, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, torch.cat([x[..., ::2, ::2, ::2], torch.zeros_like(y[:, 64:])], dim=1))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.sum() == 64 * 8


def test_the_small_trunk_is_small() -> None:
    model = MTIDS(TASKS)
    assert 30_000 <= sum(p.numel() for p in model.trunk.parameters()) <= 150_000
    assert model.trunk(torch.zeros(1, 1, 32, 32, 32)).shape == (1, 64, 4, 4, 4)

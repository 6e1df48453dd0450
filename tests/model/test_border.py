"""The border: gradients there, weighted and sent back once, are the shared gradient of the weighted loss."""

from __future__ import annotations

import pytest
import torch
from model_cases import TASKS, random_crops, random_model

from mtids_dist.model import Routing

WEIGHTS = {"joint": 0.3, "region": 2.0, "metastasis": 11.0}
CASES = [{"routing": routing} for routing in Routing]
CASES += [{"shared_experts": 0}, {"task_experts": 0}, {"top_k": 1}]
CASES += [pytest.param({"trunk": "resnet10"}, marks=pytest.mark.slow)]
each_case = pytest.mark.parametrize("settings", CASES, ids=str)


def case_losses(seed: int, settings: dict) -> tuple:
    shape = (16, 24, 24) if "trunk" in settings else (6, 9, 8)
    model, crops = random_model(seed, **settings), random_crops(seed, batch=2 if "trunk" in settings else 4, shape=shape)
    logits, border = model(crops, return_features=True)
    target = torch.Generator().manual_seed(seed)
    losses = {
        task: torch.nn.functional.cross_entropy(of, torch.randint(0, TASKS[task], (len(of),), generator=target))
        for task, of in logits.items()
    }
    return model, losses, border


@each_case
def test_one_backward_from_the_border_gives_the_weighted_shared_gradient(settings: dict) -> None:
    model, losses, border = case_losses(11, settings)
    shared = model.shared_parameters()
    wanted = torch.autograd.grad(sum(WEIGHTS[task] * loss for task, loss in losses.items()), shared, retain_graph=True)
    combined = [torch.zeros_like(tensor) for tensor in border]
    for task, loss in losses.items():
        own = model.task_parameters(task)
        grads = torch.autograd.grad(loss, [*border, *own], retain_graph=True, materialize_grads=True)
        for total, grad in zip(combined, grads, strict=False):
            total += WEIGHTS[task] * grad
    found = torch.autograd.grad(border, shared, grad_outputs=combined)
    scale = max(g.abs().max() for g in wanted)
    assert scale > 1e-6
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12 * scale.item())


@each_case
def test_no_border_tensor_depends_on_another(settings: dict) -> None:
    _, _, border = case_losses(12, settings)
    for i, tensor in enumerate(border):
        others = [other for j, other in enumerate(border) if j != i]
        grads = torch.autograd.grad(tensor.sum(), others, retain_graph=True, allow_unused=True) if others else ()
        assert all(g is None for g in grads)


def test_the_border_is_a_view_of_z_and_the_shared_experts_outputs() -> None:
    model, crops = random_model(13), random_crops(13)
    _, border = model(crops, return_features=True)
    z = model.trunk(crops)
    torch.testing.assert_close(border[0], z)
    (shared,) = border[1:]
    torch.testing.assert_close(shared, model.shared_experts(z))
    assert len(random_model(13, shared_experts=0)(crops, return_features=True)[1]) == 1


def test_asking_for_the_border_changes_no_logit() -> None:
    model, crops = random_model(14), random_crops(14)
    logits, _ = model(crops, return_features=True)
    assert all(torch.equal(of, logits[task]) for task, of in model(crops).items())

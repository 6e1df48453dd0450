"""The catalogue: every method by name, against its authors' form, also where tasks have no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd.aggregation import ConFIG, CRMOGMWeighting, KrumWeighting, NashMTL, UPGradWeighting

from mtids_dist.balance import WEIGHTINGS, SeesLosses, make_weighting

SEED = 0
METHODS = sorted(WEIGHTINGS)
OPTIONS: dict[str, dict[str, Any]] = {"constant": {"weights": [0.2, 0.3, 0.5]}}
J = torch.tensor([[1.0, 0.2, 0.0], [-0.6, 1.0, 0.3], [0.1, -0.4, 2.0]], dtype=torch.float64)
LOSSES = torch.tensor([1.0, 0.5, 2.0])


def weights_of(weighting: Any, J: Tensor, losses: Tensor = LOSSES) -> Tensor:
    if isinstance(weighting, SeesLosses):
        weighting.observe(losses)
    weights: Tensor = weighting(J @ J.T)
    return weights


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_finite_weights_and_ignores_a_zero_gradient(name: str) -> None:
    torch.manual_seed(SEED)
    weighting = make_weighting(name, **OPTIONS.get(name, {}))
    full = weights_of(weighting, J)
    assert full.shape == (3,)
    assert full.isfinite().all()
    absent = J.clone()
    absent[1] = 0
    weights = weights_of(weighting, absent)
    assert weights.isfinite().all()
    assert (weights @ absent).norm() > 0.05, "an absent task must not stop the others"


@pytest.mark.parametrize("name", ["mgda", "upgrad", "aligned_mtl", "imtl_g", "config", "cagrad"])
def test_methods_without_state_see_the_active_tasks_only(name: str) -> None:
    absent = J.clone()
    absent[1] = 0
    weights = make_weighting(name)(absent @ absent.T)
    alone = make_weighting(name)(J[[0, 2]] @ J[[0, 2]].T)
    assert torch.allclose(weights[[0, 2]], alone)


def test_krum_among_too_few_active_tasks_takes_their_mean() -> None:
    absent = J.clone()
    absent[1] = 0
    assert make_weighting("krum")(absent @ absent.T).tolist() == pytest.approx([1 / 3] * 3)
    assert torch.equal(make_weighting("krum")(J @ J.T), KrumWeighting(0)(J @ J.T))


@pytest.mark.parametrize("name", ["ddgb", "pcd", "gradvac", "cr_mogm", "gradnorm", "nash_mtl"])
def test_state_survives_a_fresh_object(name: str) -> None:
    first, second = make_weighting(name), make_weighting(name)
    for k, scale in enumerate((1.0, 3.0)):
        torch.manual_seed(SEED)
        weights_of(first, scale * J.roll(k, dims=0), LOSSES.roll(k))
    second.load_state_dict(first.state_dict())
    torch.manual_seed(SEED + 1)
    expected = weights_of(first, J.flip(0))
    torch.manual_seed(SEED + 1)
    assert torch.allclose(weights_of(second, J.flip(0)), expected, rtol=1e-6)
    torch.manual_seed(SEED + 1)
    fresh = weights_of(make_weighting(name), J.flip(0))
    # Nash-MTL's state is where its solver starts, which moves the solution a little at most.
    assert name == "nash_mtl" or not torch.allclose(fresh, expected, rtol=1e-3), "the state matters"


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_nash_mtl_of_the_gramian_is_torchjd_s_of_the_gradients(tasks: int) -> None:
    generator = torch.Generator().manual_seed(SEED)
    mine, theirs = make_weighting("nash_mtl"), NashMTL(n_tasks=tasks)
    for _ in range(5):
        J = torch.randn(tasks, 40, generator=generator, dtype=torch.float64)
        assert torch.allclose(mine(J @ J.T) @ J, theirs(J), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tasks", [2, 3, 6])
def test_config_of_the_gramian_is_torchjd_s_of_the_gradients(tasks: int) -> None:
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(50):
        scales = torch.randn(tasks, 1, generator=generator, dtype=torch.float64).exp()
        J = scales * torch.randn(tasks, 40, generator=generator, dtype=torch.float64)
        assert torch.allclose(make_weighting("config")(J @ J.T) @ J, ConFIG()(J), rtol=1e-6)
    assert make_weighting("config")(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).tolist() == [0, 0], "no common direction"


def test_gradnorm_descends_on_its_authors_objective() -> None:
    alpha, rate = 1.5, 0.1
    weighting = make_weighting("gradnorm", alpha=alpha, learning_rate=rate)
    weights = torch.ones(3, dtype=torch.float64)
    for step in range(20):
        generator = torch.Generator().manual_seed(SEED + step)
        J = torch.randn(3, 10, generator=generator, dtype=torch.float64) * torch.tensor([[0.1], [1.0], [5.0]])
        losses = LOSSES.double() * torch.tensor([0.99, 0.9, 0.95], dtype=torch.float64) ** step
        assert torch.allclose(weights_of(weighting, J, losses), weights)
        weights.requires_grad_()
        norms = weights * J.norm(dim=1)
        mean, rates = norms.mean().detach(), losses / LOSSES
        objective = (norms - mean * (rates / rates.mean()) ** alpha).abs().sum() / mean
        (gradient,) = torch.autograd.grad(objective, weights)
        weights = (weights - rate * gradient).detach().clamp(min=1e-4)
        weights = weights * 3 / weights.sum()


def test_gradnorm_without_alpha_makes_weighted_norms_equal() -> None:
    weighting = make_weighting("gradnorm", alpha=0.0, learning_rate=0.01)
    for _ in range(2000):
        weights = weights_of(weighting, J)
    weighted = weights * J.norm(dim=1)
    assert torch.allclose(weighted, weighted.mean(), rtol=0.05)


def test_gradnorm_leaves_an_absent_task_s_weight_alone() -> None:
    weighting = make_weighting("gradnorm")
    absent = J.clone()
    absent[1] = 0
    weights_of(weighting, absent, torch.tensor([1.0, 0.0, 2.0]))
    after = weights_of(weighting, J)
    assert after[1] == pytest.approx(1, abs=0.02), "only the rescaling to a sum of K moved it"
    assert weights_of(weighting, J).isfinite().all()


def test_db_mtl_brings_log_gradients_to_the_longest() -> None:
    logs = J / LOSSES[:, None]
    expected = (logs.norm(dim=1).max() * logs / logs.norm(dim=1, keepdim=True)).sum(dim=0)
    assert torch.allclose(weights_of(make_weighting("db_mtl"), J) @ J, expected)


@pytest.mark.parametrize("name", ["db_mtl", "gradnorm"])
def test_methods_that_see_losses_ask_for_them(name: str) -> None:
    with pytest.raises(ValueError, match="losses of 3 tasks must be observed before weights are asked for, found none"):
        make_weighting(name)(J @ J.T)


def test_smoothed_weights_are_torchjd_s() -> None:
    mine, theirs = make_weighting("cr_mogm", of="upgrad", alpha=0.5), CRMOGMWeighting(UPGradWeighting(), alpha=0.5)
    for k in range(3):
        G = J.roll(k, dims=0) @ J.roll(k, dims=0).T
        assert torch.equal(mine(G), theirs(G))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("pcgrab", {}, "did you mean 'pcgrad'"),
        ("ddgb", {"tua": 1.0}, "tua"),
        ("modo", {}, "two independent batches"),
        ("cr_mogm", {"of": "db_mtl"}, "can't smooth 'db_mtl', which needs the losses"),
        ("cr_mogm", {"of": "upgrab"}, "did you mean 'upgrad'"),
        ("gradnorm", {"alpha": -1}, "`alpha` must be at least 0, found -1"),
    ],
)
def test_what_can_t_be_made_is_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_weighting(name, **options)

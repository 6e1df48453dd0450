"""What must hold of DD-GB, over generated Gramians: conflicting, rank-deficient, badly scaled, with zero gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtids_dist.balance import DDGBWeighting


@st.composite
def jacobians(draw: st.DrawFn, zero_rows: bool = False) -> Tensor:
    """J [K, 8], K 2-7: conflicts of chosen strength, chosen rank, row norms log-normal with sigma 2."""
    K = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.integers(1, 8))
    J = rng.normal(size=(K, rank)) @ rng.normal(size=(rank, 8))
    if draw(st.booleans()):
        common = rng.normal(size=8)
        J = J * draw(st.sampled_from([1e-3, 0.3])) + rng.choice([-1.0, 1.0], size=(K, 1)) * common  # nearly anti-parallel pairs
    J = J / np.linalg.norm(J, axis=1, keepdims=True) * np.exp(rng.normal(scale=2, size=(K, 1)))
    if zero_rows:
        J[rng.random(K) < 0.3] = 0
    return torch.from_numpy(J)


def gramian(J: Tensor) -> Tensor:
    return J @ J.T


def scales(J: Tensor, tau: float) -> Tensor:
    """s_k of a fresh state, written down independently of the code under test."""
    log_norms = J.norm(dim=1).log()
    log_norms = torch.maximum(log_norms, log_norms.max() - math.log(1e3))
    return torch.exp(tau * (log_norms.mean() - log_norms))


taus = st.sampled_from([0.0, 0.3, 0.5, 1.0])


@given(jacobians(zero_rows=True), taus, st.booleans(), st.sampled_from([torch.float64, torch.float32]))
def test_no_task_is_harmed(J: Tensor, tau: float, dynamic: bool, dtype: torch.dtype) -> None:
    d = DDGBWeighting(tau=tau, dynamic=dynamic)(gramian(J).to(dtype)).double() @ J
    norms = J.norm(dim=1)
    if not (norms > 0).any():
        return
    eta = scales(J[norms > 0], 0.0 if dynamic else tau) * norms[norms > 0]
    tolerance = 1e-4 if dtype == torch.float64 else 1e-3
    assert (J @ d >= -tolerance * max(eta.mean().item(), norms.max().item() if dynamic else 0) * norms).all()


@given(jacobians(), taus)
def test_no_task_is_silenced(J: Tensor, tau: float) -> None:
    weights = DDGBWeighting(tau=tau)(gramian(J))
    assert (weights >= scales(J, tau) / len(J) * (1 - 1e-9)).all()


@given(jacobians(zero_rows=True), taus, st.integers(0, 10**6))
def test_permuting_tasks_with_their_state_permutes_weights(J: Tensor, tau: float, seed: int) -> None:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(J)))
    straight, permuted = DDGBWeighting(tau=tau), DDGBWeighting(tau=tau)
    for step in (J, J.flip(0)):
        w, w_permuted = straight(gramian(step)), permuted(gramian(step[order]))
        d, d_permuted = w @ step, w_permuted @ step[order]
    assert torch.allclose(d, d_permuted, atol=1e-6 * step.norm(dim=1).max().item(), rtol=1e-6)


@pytest.mark.parametrize("K", [1, 2, 5])
def test_identical_gradients_get_the_mean(K: int) -> None:
    G = torch.full((K, K), 3.7, dtype=torch.float64)
    assert torch.allclose(DDGBWeighting()(G), torch.full((K,), 1 / K, dtype=torch.float64), atol=1e-7)


@given(jacobians(), taus)
def test_without_conflict_only_magnitudes_act(J: Tensor, tau: float) -> None:
    J = J.abs()
    expected = scales(J, tau) / len(J)
    assert torch.allclose(DDGBWeighting(tau=tau)(gramian(J)), expected, rtol=1e-9, atol=0)


@given(jacobians(), taus, st.sampled_from([1e-8, 1e-3, 1e6]))
def test_scaling_every_gradient_changes_nothing(J: Tensor, tau: float, c: float) -> None:
    d, d_scaled = (DDGBWeighting(tau=tau)(gramian(f * J)) @ J for f in (1.0, c))
    assert torch.allclose(d, d_scaled, rtol=1e-6, atol=1e-6 * J.norm(dim=1).max().item())


@given(jacobians(), taus, st.sampled_from([torch.float64, torch.float32]))
def test_update_is_at_most_the_mean_of_eta(J: Tensor, tau: float, dtype: torch.dtype) -> None:
    d = DDGBWeighting(tau=tau)(gramian(J).to(dtype)).double() @ J
    eta = scales(J, tau) * J.norm(dim=1)
    assert d.norm() <= eta.mean() * (1 + (1e-6 if dtype == torch.float64 else 1e-3))


@given(st.integers(2, 7), taus, st.integers(0, 10**6))
def test_ranks_and_geometric_mean_of_norms_are_kept(K: int, tau: float, seed: int) -> None:
    """With orthogonal gradients w_k = s_k / K, so the given norms eta can be read off the weights."""
    log_norms = torch.from_numpy(np.random.default_rng(seed).uniform(-3, 3, K))
    eta = DDGBWeighting(tau=tau)(torch.diag(torch.exp(2 * log_norms))) * K * log_norms.exp()
    assert torch.allclose(eta.log() - log_norms.mean(), (1 - tau) * (log_norms - log_norms.mean()), atol=1e-9)


@given(jacobians(), taus, st.data())
def test_a_zero_gradient_leaves_the_others_alone(J: Tensor, tau: float, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(J)))
    K = len(J)
    padded = torch.cat([J[:at], torch.zeros(1, J.shape[1], dtype=J.dtype), J[at:]])
    weights = DDGBWeighting(tau=tau)(gramian(padded))
    others = torch.cat([weights[:at], weights[at + 1 :]])
    assert weights.isfinite().all()
    assert torch.allclose(others * (K + 1), DDGBWeighting(tau=tau)(gramian(J)) * K, rtol=1e-7)


def test_an_absent_task_moves_the_others_continuously() -> None:
    """A task whose gradient goes to zero ends where a task whose gradient is zero stands."""
    J = torch.tensor([[1.0, 0.2, 0.0], [-0.3, 1.0, 0.0], [0.0, 0.5, 2.0]], dtype=torch.float64)

    def weights_after(last: Tensor) -> Tensor:
        weighting = DDGBWeighting(beta=0.5)
        for step in (J, J):
            weighting(gramian(step))
        return weighting(gramian(last))

    absent = J.clone()
    absent[2] = 0
    before = weights_after(J)[:2]
    assert torch.allclose(weights_after(absent)[:2], before, rtol=0.5), "no jump when the task goes"
    gone = DDGBWeighting(beta=0.5)
    gone(gramian(J))
    sequence = torch.stack([gone(gramian(absent))[:2] for _ in range(5)])
    assert torch.allclose(sequence, sequence[:1].expand_as(sequence), rtol=1e-9), "its running norm stays while it is away"


def test_the_running_average_is_of_log_norms_and_starts_at_the_first() -> None:
    weighting = DDGBWeighting(tau=1.0, beta=0.75)
    weighting(torch.diag(torch.tensor([1.0, 1.0], dtype=torch.float64)))
    weights = weighting(torch.diag(torch.tensor([math.e**2, 1.0], dtype=torch.float64)))
    mu = torch.tensor([0.25, 0.0], dtype=torch.float64)
    assert torch.allclose(weights, torch.exp(mu.mean() - mu) / 2)


def test_a_vanishing_task_counts_as_at_most_max_ratio_below_the_largest() -> None:
    weights = DDGBWeighting(tau=1.0, max_ratio=1e3)(torch.diag(torch.tensor([1.0, 1e-12], dtype=torch.float64)))
    half = math.log(1e3) / 2
    assert torch.allclose(weights, torch.tensor([-half, half], dtype=torch.float64).exp() / 2)


def test_dynamic_tau_leaves_equal_norms_alone_and_tends_to_tau_for_unequal() -> None:
    def eta_ratio(norm: float) -> float:
        G = torch.diag(torch.tensor([1.0, norm**2], dtype=torch.float64))
        w = DDGBWeighting(tau=1.0, dynamic=True)(G)
        return (w[1] * norm / w[0]).item()

    assert eta_ratio(1.0) == pytest.approx(1.0)
    m = 1 - 2 * 3 / (1 + 9)
    assert eta_ratio(3.0) == pytest.approx(3 ** (1 - m))


def test_tau_zero_is_upgrad_up_to_its_ridge() -> None:
    from torchjd.aggregation import UPGradWeighting
    from torchjd.linalg import QuadprogProjector

    rng = np.random.default_rng(0)
    for _ in range(50):
        J = torch.from_numpy(rng.normal(size=(4, 6)))
        upgrad = UPGradWeighting(projector=QuadprogProjector(norm_eps=0, reg_eps=1e-10))(gramian(J))
        assert torch.allclose(DDGBWeighting(tau=0)(gramian(J)) @ J, upgrad @ J, atol=1e-5)


def test_direction_off_is_magnitude_only() -> None:
    J = torch.tensor([[1.0, 0.0], [-2.0, 0.1]], dtype=torch.float64)
    assert torch.allclose(DDGBWeighting(direction=False)(gramian(J)), scales(J, 0.5) / 2)


def test_state_goes_into_a_fresh_object() -> None:
    G = torch.diag(torch.tensor([1.0, 9.0, 0.0], dtype=torch.float64))
    first = DDGBWeighting()
    first(G)
    second = DDGBWeighting()
    second.load_state_dict(first.state_dict())
    H = torch.diag(torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64))
    assert torch.equal(first(H), second(H))
    second.reset()
    assert not torch.equal(first(H), second(H))


def test_nan_gives_nan_and_leaves_the_state() -> None:
    weighting, untouched = DDGBWeighting(), DDGBWeighting()
    G = torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64))
    weighting(G), untouched(G)
    assert weighting(torch.tensor([[math.nan, 0.0], [0.0, 1.0]], dtype=torch.float64)).isnan().all()
    assert torch.equal(weighting(2 * G), untouched(2 * G))


def test_all_gradients_zero() -> None:
    assert torch.equal(DDGBWeighting()(torch.zeros(3, 3)), torch.full((3,), 1 / 3))


@pytest.mark.parametrize(("option", "value"), [("tau", 1.5), ("beta", 1.0), ("max_ratio", 0.5)])
def test_wrong_parameters_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{option}`.*found {value}"):
        DDGBWeighting(**{option: value})

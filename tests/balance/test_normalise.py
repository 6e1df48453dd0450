"""Methods that sum and methods that average, at one length."""

from __future__ import annotations

import pytest
import torch
from balance.nets import Net, batch, task_gradients

from mtids_dist.balance import GradientBalancer, make_weighting


@pytest.mark.parametrize("method", ["sum", "equal", "pcgrad", "mgda", "ddgb", "db_mtl"])
@pytest.mark.parametrize("how", ["length", "weights", "none"])
def test_normalised_updates_have_the_length_of_the_mean_or_weights_that_sum_to_one(method: str, how: str) -> None:
    net = Net()
    J = task_gradients(net)
    plain, normalised = (
        GradientBalancer(net.trunk.parameters(), make_weighting(method), normalise=each) for each in ("none", how)
    )
    torch.manual_seed(0)
    before = plain.backward(net.losses(*batch())).weights
    torch.manual_seed(0)
    net.zero_grad()
    weights = normalised.backward(net.losses(*batch())).weights
    assert torch.allclose(weights / weights.norm(), before / before.norm()), "the direction is the same"
    assert torch.allclose(net.shared_gradient(), weights @ J, rtol=1e-4, atol=1e-6)
    if how == "length":
        assert (weights @ J).norm().item() == pytest.approx(J.mean(dim=0).norm().item(), rel=1e-4)
    if how == "weights":
        assert weights.sum().item() == pytest.approx(1)


def test_another_way_is_refused() -> None:
    with pytest.raises(ValueError, match="`normalise` must be one of none, weights, length, found 'norm'"):
        GradientBalancer(Net().trunk.parameters(), make_weighting("sum"), normalise="norm")  # type: ignore[arg-type]

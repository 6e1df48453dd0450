"""The catalogue: every method by name, also where tasks have no gradient."""

from __future__ import annotations

import pytest
import torch

from mtids_dist.balance import WEIGHTINGS, make_weighting

METHODS = sorted(set(WEIGHTINGS) - {"cagrad"})  # CAGrad needs the extra `cagrad`
J = torch.tensor([[1.0, 0.2, 0.0], [-0.6, 1.0, 0.3], [0.1, -0.4, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_finite_weights_and_ignores_a_zero_gradient(name: str) -> None:
    torch.manual_seed(0)
    weighting = make_weighting(name)
    G = J @ J.T
    full = weighting(G)
    assert full.shape == (3,)
    assert full.isfinite().all()
    absent = J.clone()
    absent[1] = 0
    weights = weighting(absent @ absent.T)
    assert weights.isfinite().all()
    assert (weights @ absent).norm() > 0.05, "an absent task must not stop the others"


@pytest.mark.parametrize("name", ["mgda", "upgrad", "aligned_mtl", "imtl_g"])
def test_methods_without_state_see_the_active_tasks_only(name: str) -> None:
    absent = J.clone()
    absent[1] = 0
    weights = make_weighting(name)(absent @ absent.T)
    alone = make_weighting(name)(J[[0, 2]] @ J[[0, 2]].T)
    assert torch.allclose(weights[[0, 2]], alone)


@pytest.mark.parametrize("name", ["ddgb", "pcd", "gradvac"])
def test_state_survives_a_fresh_object(name: str) -> None:
    first, second = make_weighting(name), make_weighting(name)
    for scale in (1.0, 3.0):
        torch.manual_seed(0)
        first(scale * J @ J.T)
    second.load_state_dict(first.state_dict())
    H = J.flip(0) @ J.flip(0).T
    torch.manual_seed(1)
    expected = first(H)
    torch.manual_seed(1)
    assert torch.equal(second(H), expected)
    fresh = make_weighting(name)
    torch.manual_seed(1)
    assert not torch.equal(fresh(H), expected), "the state matters"


def test_misspelt_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'pcgrad'"):
        make_weighting("pcgrab")


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ValueError, match="tua"):
        make_weighting("ddgb", tua=1.0)

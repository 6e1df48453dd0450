"""The gate alone: what method.md asks of DBR's weights, over random gates."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtids_dist.model.gates import Gate, UniformGate

CONTEXT = 12


def random_gate(seed: int, scale: float = 1.0, **settings: Any) -> tuple[Gate, torch.Tensor]:
    """A gate with random rows, and contexts q [5, CONTEXT] for it, in float64."""
    generator = torch.Generator().manual_seed(seed)
    gate = Gate(CONTEXT, **{"num_shared": 3, "num_private": 2} | settings).double()
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return gate, torch.randn(5, CONTEXT, generator=generator, dtype=torch.float64)


gates = st.builds(
    random_gate,
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    num_shared=st.integers(1, 8),
    num_private=st.integers(1, 8),
    branch_temperature=st.sampled_from([0.1, 1.0, 5.0]),
    expert_temperature=st.sampled_from([0.1, 1.0, 5.0]),
    top_k=st.none() | st.integers(1, 9),
    tied=st.booleans(),
)


@given(gates)
def test_every_weight_is_non_negative_and_each_softmax_sums_to_one(drawn: tuple[Gate, torch.Tensor]) -> None:
    gate, q = drawn
    use = gate(q)
    for weights in (*use, use.mixture()):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(q), dtype=q.dtype))


@given(gates)
def test_top_k_keeps_the_k_largest_renormalised(drawn: tuple[Gate, torch.Tensor]) -> None:
    gate, q = drawn
    use, k = gate(q), gate.top_k
    gate.top_k = None
    for kept, whole in ((use.shared, gate(q).shared), (use.private, gate(q).private)):
        wanted = whole
        if k is not None and k < whole.shape[1]:
            wanted = torch.where(whole >= whole.topk(k).values[:, -1:], whole, 0)
            wanted = wanted / wanted.sum(dim=1, keepdim=True)
        torch.testing.assert_close(kept, wanted, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_biases_stand_outside_the_temperatures(seed: int) -> None:
    gate, q = random_gate(seed, branch_temperature=0.3, expert_temperature=4.0)
    use = gate(q)
    for weights, rows, temperature in (
        (use.branch, gate.branch, 0.3),
        (use.shared, gate.shared, 4.0),
        (use.private, gate.private, 4.0),
    ):
        torch.testing.assert_close(weights, (q @ rows.weight.T / temperature + rows.bias).softmax(dim=1))


@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.2, 1.0, 3.0]), m=st.integers(1, 6), n=st.integers(1, 6))
def test_tied_branches_are_cgcs_one_softmax(seed: int, temperature: float, m: int, n: int) -> None:
    gate, q = random_gate(seed, num_shared=m, num_private=n, expert_temperature=temperature, tied=True)
    weight, bias = torch.cat([gate.shared.weight, gate.private.weight]), torch.cat([gate.shared.bias, gate.private.bias])
    assert gate.branch is None
    torch.testing.assert_close(gate(q).mixture(), (q @ weight.T / temperature + bias).softmax(dim=1))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_an_untrained_gate_weighs_all_alike(temperature: float) -> None:
    gate = Gate(CONTEXT, num_shared=4, num_private=3, branch_temperature=temperature, expert_temperature=temperature)
    use = gate(torch.randn(6, CONTEXT, generator=torch.Generator().manual_seed(0)))
    for weights, value in ((use.branch, 1 / 2), (use.shared, 1 / 4), (use.private, 1 / 3)):
        torch.testing.assert_close(weights, torch.full_like(weights, value))


@pytest.mark.parametrize("seed", range(5))
def test_temperature_to_zero_picks_the_largest_w_q(seed: int) -> None:
    gate, q = random_gate(seed, num_shared=5, num_private=4, branch_temperature=1e-6, expert_temperature=1e-6)
    use = gate(q)
    for weights, rows in ((use.branch, gate.branch), (use.shared, gate.shared), (use.private, gate.private)):
        top = torch.nn.functional.one_hot((q @ rows.weight.T).argmax(dim=1), weights.shape[1])
        torch.testing.assert_close(weights, top.double())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_copies_of_an_expert_share_its_weight_exactly(temperature: float) -> None:
    """What growing M relies on: c rows with bias b - log c together weigh what the one row did."""
    gate, q = random_gate(1, num_shared=2, expert_temperature=temperature)
    grown = Gate(CONTEXT, num_shared=4, num_private=2, expert_temperature=temperature).double()
    of = torch.tensor([0, 1, 1, 1])
    grown.shared.weight.data, grown.shared.bias.data = (
        gate.shared.weight[of],
        gate.shared.bias[of] - torch.tensor([1, 3, 3, 3]).log(),
    )
    merged = torch.zeros(len(q), 2, dtype=q.dtype).index_add(1, of, grown(q).shared)
    torch.testing.assert_close(merged, gate(q).shared)


@pytest.mark.parametrize(("m", "n", "branch"), [(3, 0, [1.0, 0.0]), (0, 2, [0.0, 1.0])])
@pytest.mark.parametrize("kind", ["dbr", "tied", "uniform"])
def test_a_branch_without_experts_gets_no_weight(kind: str, m: int, n: int, branch: list[float]) -> None:
    if kind == "uniform":
        gate = UniformGate(num_shared=m, num_private=n)
    else:
        gate = Gate(CONTEXT, num_shared=m, num_private=n, tied=kind == "tied")
    use = gate(torch.randn(2, CONTEXT))
    assert use.branch.tolist() == [branch, branch]
    assert use.mixture().shape == (2, m + n)
    torch.testing.assert_close(use.mixture().sum(dim=1), torch.ones(2))


def test_uniform_gates_halve_the_branches_and_split_them_evenly() -> None:
    use = UniformGate(num_shared=4, num_private=1)(torch.randn(2, CONTEXT))
    assert use.mixture()[0].tolist() == [1 / 8] * 4 + [1 / 2]
    assert math.isclose(use.branch[0, 0].item(), 0.5)

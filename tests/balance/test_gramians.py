"""The three ways to a Gramian: what each finds, on one rank and on several, and what it says that it costs."""

from __future__ import annotations

import pytest
import torch
from balance.nets import TASKS, Net, batch, task_gradients
from ranks import run_ranks
from torch import Tensor

from mtids_dist.balance import (
    DDGBWeighting,
    ExactGramian,
    GradientBalancer,
    Gramian,
    RepresentationGramian,
    SketchGramian,
)
from mtids_dist.balance.collectives import rank_sum

SEED = 3
DRAWS, ALLOWED, SHARE = 1000, 0.05, 0.95


def agreed(gramian: Gramian, rows: Tensor, step: int = 0) -> Tensor:
    agreement = gramian.agree(step)
    for row in rows:
        agreement.add([row])
    part = agreement.part()
    return rank_sum(part, part.device)


def part_of_rank(gramian: Gramian, length: int) -> Tensor:
    """The Gramian of rows of which every rank has its own."""
    import torch.distributed as dist

    generator = torch.Generator().manual_seed(SEED)
    rows = torch.randn(dist.get_world_size(), 3, length, generator=generator)
    return torch.stack([agreed(gramian, rows[dist.get_rank()]), (J := rows.double().mean(dim=0)) @ J.T])


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_every_rank_finds_the_gramian_of_the_mean(world_size: int) -> None:
    for found, wanted in run_ranks(part_of_rank, world_size, ExactGramian(), 1001):
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-3)
    first, *others = run_ranks(part_of_rank, world_size, SketchGramian(m=4096), 1001)
    norms = first[1].diagonal().sqrt()
    assert ((first[0] - first[1]).abs() <= 0.15 * torch.outer(norms, norms)).all()
    assert all(torch.equal(first, other) for other in others)


def test_bfloat16_rows_are_summed_in_float32_or_wider() -> None:
    rows = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(SEED)).bfloat16()
    wanted = rows.double() @ rows.double().T
    norms = wanted.diagonal().sqrt()
    assert ((agreed(ExactGramian(), rows) - wanted).abs() <= 1e-6 * torch.outer(norms, norms)).all()


def test_the_border_gives_the_gramian_of_border_gradients() -> None:
    net = Net()
    losses, (z,) = net.losses_and_border(*batch())
    U = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].reshape(-1) for loss in losses.values()]).double()
    balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), gramian=RepresentationGramian())
    info = balancer.backward(losses, (z,))
    assert torch.allclose(info.gramian, U @ U.T, rtol=1e-5)
    assert torch.allclose(net.shared_gradient(), info.weights @ task_gradients(net), rtol=1e-4, atol=1e-7)


def conflicting(draw: int) -> Tensor:
    """Two to seven gradients [K, N] that a common direction sets against each other, of unlike norms."""
    generator = torch.Generator().manual_seed(SEED * DRAWS + draw)
    num_tasks = int(torch.randint(2, 8, (1,), generator=generator))
    common = torch.randn(20_000, generator=generator)
    sides = torch.randn(num_tasks, 1, generator=generator).sign() * 2 * torch.rand(1, generator=generator)
    rows = torch.randn(num_tasks, 20_000, generator=generator) + sides * common
    return rows * torch.exp(torch.randn(num_tasks, 1, generator=generator))


def test_a_sketch_moves_the_update_little() -> None:
    errors = []
    for draw in range(DRAWS):
        rows = conflicting(draw)
        exact, sketched = agreed(ExactGramian(), rows), agreed(SketchGramian(m=4096, seed=draw), rows)
        weights = DDGBWeighting()(sketched) - DDGBWeighting()(exact)
        log_norms = exact.diagonal().log() / 2
        eta = (log_norms + 0.5 * (log_norms.mean() - log_norms)).exp()
        errors.append(((weights @ exact @ weights).clamp(min=0).sqrt() / eta.mean()).item())
    within = sum(error <= ALLOWED for error in errors) / DRAWS
    print(f"seed {SEED}: {within:.1%} of {DRAWS} draws within {ALLOWED}, worst {max(errors):.3f}")
    assert within >= SHARE


@pytest.mark.parametrize("same_sign", [True, False])
def test_a_sketch_is_right_on_average(same_sign: bool) -> None:
    """Also of gradients of one sign over several blocks, whose products add up if signs of blocks depend on each other."""
    rows = torch.randn(2, 3 << 18, generator=torch.Generator().manual_seed(SEED))
    rows, times = torch.ones_like(rows) if same_sign else rows, 400
    wanted = rows.double() @ rows.double().T
    mean = sum(agreed(SketchGramian(m=8, seed=seed), rows) for seed in range(times)) / times
    norms = torch.outer(wanted.diagonal().sqrt(), wanted.diagonal().sqrt())
    assert ((mean - wanted).abs() / norms).max() <= 4 * (2 / 7 / times) ** 0.5


def test_a_sketch_has_every_number() -> None:
    """One a row: nothing can share its bucket."""
    for place in (0, 2_999, 3_000, 4_095, 9_999):
        rows = torch.zeros(2, 10_000)
        rows[:, place] = torch.tensor([2.0, -3.0])
        assert torch.equal(agreed(SketchGramian(), rows), torch.tensor([[4.0, -6.0], [-6.0, 9.0]], dtype=torch.float64))


def test_steps_are_sketched_anew_and_runs_alike() -> None:
    rows = conflicting(0)
    one, other = SketchGramian(m=64), SketchGramian(m=64)
    first, second = agreed(one, rows, 0), agreed(one, rows, 1)
    assert not torch.equal(first, second)
    assert torch.equal(agreed(other, rows), first)


def test_costs_are_told_before_running() -> None:
    net = Net()
    size = sum(p.numel() for p in net.trunk.parameters())
    for gramian, sent, kept in (
        (ExactGramian(), 0, 4 * len(TASKS) * size),
        (SketchGramian(), 0, 4 * len(TASKS) * size),
        (RepresentationGramian(), 0, 0),
    ):
        balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), gramian=gramian)
        assert (balancer.bytes_sent(len(TASKS)), balancer.bytes_kept(len(TASKS))) == (sent, kept), "one rank sends nothing"


def test_a_sketch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`m` must be at least 1, found 0"):
        SketchGramian(m=0)

"""Steps of several micro-batches, weights that serve several steps, and steps that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from balance.nets import ROWS, TASKS, Net, batch, task_gradients
from ranks import run_ranks
from torch import Tensor, nn

from mtids_dist.balance import (
    BalanceInfo,
    DDGBWeighting,
    GradientBalancer,
    Gramian,
    NonFiniteGradientError,
    RepresentationGramian,
    SketchGramian,
    make_weighting,
)
from mtids_dist.balance.rows import added


def micro_batches(parts: int) -> list[tuple[Tensor, Tensor]]:
    x, y = batch()
    return list(zip(x.chunk(parts), y.chunk(parts), strict=True))


def accumulated(parts: int, gramian: Gramian | None = None) -> tuple[Tensor, list[BalanceInfo]]:
    net = Net()
    balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), gramian=gramian, accumulation_steps=parts)
    infos = []
    for x, y in micro_batches(parts):
        losses, border = net.losses_and_border(x, y)
        infos.append(balancer.backward(losses, border))
    return net.gradients(), infos


@pytest.mark.parametrize("parts", [2, 4])
def test_a_window_gives_the_gradients_of_one_large_batch(parts: int) -> None:
    (whole, (info,)), (found, infos) = accumulated(1), accumulated(parts)
    assert torch.allclose(found, whole, rtol=1e-4, atol=1e-7)
    assert torch.allclose(infos[-1].gramian, info.gramian, rtol=1e-4)
    assert [each.complete for each in infos] == [False] * (parts - 1) + [True]


def test_a_window_at_the_border_is_weighted_as_the_one_before_it_said() -> None:
    net = Net()
    balancer = GradientBalancer(
        net.trunk.parameters(), make_weighting("upgrad"), gramian=RepresentationGramian(), accumulation_steps=2
    )
    found = []
    for _ in range(2):
        net.zero_grad()
        for x, y in micro_batches(2):
            losses, border = net.losses_and_border(x, y)
            info = balancer.backward(losses, border)
        found.append((info, net.shared_gradient()))
    J = task_gradients(net)
    assert torch.allclose(found[0][1], J.mean(dim=0), rtol=1e-4, atol=1e-7), "nothing was known before the first"
    upgrad = make_weighting("upgrad")(found[0][0].gramian)
    assert torch.allclose(found[1][0].weights, upgrad)
    assert torch.allclose(found[1][1], upgrad @ J, rtol=1e-4, atol=1e-7)


def test_weights_serve_until_others_are_found() -> None:
    net = Net()
    balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), every=3)
    infos = []
    for step in range(4):
        net.zero_grad()
        losses, border = net.losses_and_border(*batch(step))
        infos.append(balancer.backward(losses, border))
        assert torch.allclose(net.shared_gradient(), infos[-1].weights @ task_gradients(net, step), rtol=1e-4, atol=1e-7)
        own = torch.autograd.grad(net.losses(*batch(step))["b"], net.heads["b"].weight)[0]
        assert torch.allclose(net.heads["b"].weight.grad, own), "private parts are never weighted"
    assert [info.balanced for info in infos] == [True, False, False, True]
    assert torch.equal(infos[0].weights, infos[2].weights)
    assert not torch.equal(infos[0].weights, infos[3].weights)


def test_steps_between_go_on_after_a_restart() -> None:
    net = Net()
    first = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), every=2)
    losses, border = net.losses_and_border(*batch())
    before = first.backward(losses, border)
    second = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), every=2)
    second.load_state_dict(first.state_dict())
    losses, border = net.losses_and_border(*batch(1))
    after = second.backward(losses, border)
    assert not after.balanced
    assert torch.equal(after.weights, before.weights)


def test_a_sketch_goes_on_after_a_restart() -> None:
    net = Net()
    first, second = (GradientBalancer(net.trunk.parameters(), DDGBWeighting(), gramian=SketchGramian(64)) for _ in range(2))
    first.backward(net.losses(*batch()))
    second.load_state_dict(first.state_dict())
    assert torch.equal(*(balancer.backward(net.losses(*batch(1))).gramian for balancer in (first, second)))


@pytest.mark.parametrize(
    ("options", "told"), [({"every": 2}, "every=2"), ({"gramian": RepresentationGramian()}, r"RepresentationGramian\(\)")]
)
def test_features_that_are_needed_are_asked_for(options: dict[str, object], told: str) -> None:
    net = Net()
    balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), **options)  # type: ignore[arg-type]
    if "every" in options:
        balancer.backward(net.losses(*batch()))  # finds weights, at the parameters
    with pytest.raises(ValueError, match=f"border tensors with {told}, found none"):
        balancer.backward(net.losses(*batch()))


@pytest.mark.parametrize("name", ["every", "accumulation_steps"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, found 0"):
        GradientBalancer(Net().trunk.parameters(), DDGBWeighting(), **{name: 0})  # type: ignore[arg-type]


def broken_on_one_rank(gramian: Gramian | None, every: int, skip: bool) -> tuple[str, bool, Tensor]:
    """What rank 1's nan in the loss of b does in the second step, which follows a good one."""
    import torch.distributed as dist

    net, rank = Net(), dist.get_rank()
    balancer = GradientBalancer(
        net.trunk.parameters(), DDGBWeighting(), gramian=gramian, every=every, on_non_finite="skip" if skip else "stop"
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    told, skipped = "", False
    before = nn.utils.parameters_to_vector(net.parameters())
    for step in range(3):
        optimizer.zero_grad()
        losses, border = net.losses_and_border(*(part[rank * ROWS // 2 : (rank + 1) * ROWS // 2] for part in batch(step)))
        if step == 1:
            before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
            losses["b"] = losses["b"] * (math.nan if rank == 1 else 1.0)
        try:
            info = balancer.backward(losses, border)
        except NonFiniteGradientError as error:
            told = str(error)
            break
        if info.skipped:
            skipped = True
            assert all(p.grad is None for p in net.parameters()), "nothing was handed over"
            break
        optimizer.step()
    return told, skipped, nn.utils.parameters_to_vector(net.parameters()).detach() - before


@pytest.mark.slow
@pytest.mark.parametrize(("gramian", "every"), [(None, 1), (None, 2), (SketchGramian(64), 1), (RepresentationGramian(), 1)])
def test_every_rank_stops_at_a_nan_of_one_and_names_it(gramian: Gramian | None, every: int) -> None:
    for told, _, moved in run_ranks(broken_on_one_rank, 2, gramian, every, False):
        assert "b on rank 1" in told
        assert "on rank 0" not in told
        assert not moved.any()
    for told, skipped, moved in run_ranks(broken_on_one_rank, 2, gramian, every, True):
        assert (told, skipped) == ("", True)
        assert not moved.any()


def test_small_additions_in_bfloat16_are_not_lost() -> None:
    total = torch.tensor([256.0]).bfloat16()
    for _ in range(3):
        (total,) = added([total], [torch.tensor([0.5]).bfloat16()])
    assert total.item() == 257.5


def test_what_balancing_did_is_told() -> None:
    info = BalanceInfo(
        tasks=TASKS,
        weights=torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64),
        gramian=torch.tensor([[4.0, -2.0, 0.0], [-2.0, 1.0, 0.5], [0.0, 0.5, 0.0]], dtype=torch.float64),
    )
    assert info.conflicts == (("a", "b"),)
    assert info.norms.tolist() == [2, 1, 0]
    assert info.progress.tolist() == pytest.approx([(2 - 0.5) / 2, -1 + 0.25 + 0.125, 0])
    assert info.plain_progress.tolist() == pytest.approx([(4 - 2) / 3 / 2, (-2 + 1 + 0.5) / 3, 0])

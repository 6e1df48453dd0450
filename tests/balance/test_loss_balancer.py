"""Weights on losses: TorchJD's scalarizations in one process are the reference, on one rank and on two."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from balance.nets import ROWS, TASKS, Net, batch
from ranks import run_ranks
from torch import Tensor, nn

from mtids_dist.balance import (
    SCALARIZATIONS,
    BalanceInfo,
    LossBalancer,
    NonFiniteGradientError,
    learned_parameters,
    make_scalarization,
)

METHODS = sorted(SCALARIZATIONS)
STEPS, EPOCH, SEED = 6, 2, 7


def by_torchjd(method: str) -> Tensor:
    """Parameters after some steps, without anything of ours."""
    net, scalarization = Net(), make_scalarization(method, len(TASKS))
    torch.manual_seed(SEED)
    optimizer = torch.optim.SGD([*net.parameters(), *learned_parameters(scalarization)], lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        scalarization(torch.stack(list(net.losses(*batch(step)).values()))).backward()
        optimizer.step()
        if method == "famo":
            scalarization.update(torch.stack(list(net.losses(*batch(step)).values())))
        if method == "dwa" and step % EPOCH == EPOCH - 1:
            scalarization.step()
    return nn.utils.parameters_to_vector([*net.parameters(), *learned_parameters(scalarization)]).detach()


def by_us(method: str, restart: bool = False) -> tuple[Tensor, list[BalanceInfo]]:
    import torch.distributed as dist

    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    net, scalarization = Net(), make_scalarization(method, len(TASKS))
    torch.manual_seed(SEED + rank)
    optimizer = torch.optim.SGD([*net.parameters(), *learned_parameters(scalarization)], lr=0.1)
    balancer, infos = LossBalancer(scalarization), []
    for step in range(STEPS):
        if restart and step == STEPS // 2 + 1:
            fresh = make_scalarization(method, len(TASKS))
            for new, old in zip(learned_parameters(fresh), learned_parameters(scalarization), strict=True):
                new.data.copy_(old)  # the optimizer's checkpoint has them
            optimizer = torch.optim.SGD([*net.parameters(), *learned_parameters(fresh)], lr=0.1)
            state, balancer, scalarization = balancer.state_dict(), LossBalancer(fresh), fresh
            balancer.load_state_dict(state)
        optimizer.zero_grad()
        mine = [part[rank * ROWS // size : (rank + 1) * ROWS // size] for part in batch(step)]
        infos.append(balancer.backward(net.losses(*mine)))
        optimizer.step()
        if balancer.needs_losses_after_step:
            balancer.after_step(net.losses(*mine))
        if step % EPOCH == EPOCH - 1:
            balancer.end_epoch()
    return nn.utils.parameters_to_vector([*net.parameters(), *learned_parameters(scalarization)]).detach(), infos


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_those_of_torchjd_alone(method: str) -> None:
    found, infos = by_us(method)
    assert torch.allclose(found, by_torchjd(method), atol=2e-6)
    assert infos[-1].weights.isfinite().all()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"rlw"}))
def test_a_restart_changes_nothing(method: str) -> None:
    assert torch.equal(by_us(method)[0], by_us(method, restart=True)[0])


def on_ranks() -> dict[str, Tensor]:
    return {method: by_us(method)[0] for method in METHODS}


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one() -> None:
    for found in run_ranks(on_ranks, 2):
        for method in METHODS:
            assert torch.allclose(found[method], by_us(method)[0], atol=3e-6), method


@pytest.mark.parametrize("method", METHODS)
def test_a_task_without_labels_moves_the_others_by_nothing(method: str) -> None:
    """Its weight is applied to a loss of 0, and those of the others are what its last loss makes them."""
    weights = []
    for absent in (False, True):
        net, scalarization = Net(), make_scalarization(method, len(TASKS))
        balancer = LossBalancer(scalarization)
        torch.manual_seed(SEED)
        balancer.backward(net.losses(*batch()))
        losses = net.losses(*batch())
        if absent:
            losses["b"] = losses["b"] * 0
        for parameter in [*net.parameters(), *scalarization.parameters()]:
            parameter.grad = None
        info = balancer.backward(losses)
        weights.append(info.weights)
        if absent:
            assert net.heads["b"].weight.grad.abs().sum() == 0
            assert nn.utils.parameters_to_vector([p.grad for p in net.trunk.parameters()]).isfinite().all()
            taught = [learned.grad for learned in learned_parameters(scalarization)]
            assert all(gradient[1] == 0 and gradient[0] != 0 for gradient in taught), "it teaches nothing either"
    assert torch.allclose(weights[0], weights[1])


def test_a_task_that_was_never_there_is_an_average_one() -> None:
    net = Net()
    losses = net.losses(*batch())
    losses["b"] = losses["b"] * 0
    info = LossBalancer(make_scalarization("famo", 3)).backward(losses)
    assert info.weights.isfinite().all()
    assert info.weights.max() < 0.7, "log(0) would have taken all the weight"


def test_micro_batches_are_one_batch_where_weights_do_not_depend_on_losses() -> None:
    found = []
    for parts in (1, 4):
        net, scalarization = Net(), make_scalarization("uw", 3)
        balancer = LossBalancer(scalarization, accumulation_steps=parts)
        infos = [balancer.backward(net.losses(x, y)) for x, y in zip(*(part.chunk(parts) for part in batch()), strict=True)]
        assert [info.complete for info in infos] == [False] * (parts - 1) + [True]
        found.append(torch.cat([net.gradients(), scalarization.log_var.grad]))
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_weights_that_sum_to_one() -> None:
    info = LossBalancer(make_scalarization("imtl_l", 3), normalise="weights").backward(Net().losses(*batch()))
    assert info.weights.tolist() == pytest.approx([1 / 3] * 3)


def broken_on_one_rank(skip: bool) -> tuple[str, bool, bool]:
    import torch.distributed as dist

    net = Net()
    losses = net.losses(*batch())
    losses["b"] = losses["b"] * (math.inf if dist.get_rank() == 1 else 1)
    balancer = LossBalancer(make_scalarization("famo", 3), on_non_finite="skip" if skip else "stop")
    told, skipped = "", False
    try:
        skipped = balancer.backward(losses).skipped
    except NonFiniteGradientError as error:
        told = str(error)
    return told, skipped, all(p.grad is None for p in net.parameters())


@pytest.mark.slow
def test_every_rank_stops_at_an_infinite_loss_of_one() -> None:
    for told, _, untouched in run_ranks(broken_on_one_rank, 2, False):
        assert "b on rank 1 is not finite" in told
        assert untouched
    assert run_ranks(broken_on_one_rank, 2, True) == [("", True, True)] * 2


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("umw", {}, "did you mean 'uw'"),
        ("dwa", {"temprature": 1.0}, "temprature"),
        ("constant", {"weights": [1.0]}, "`weights` must have a number a task, 3, found 1"),
    ],
)
def test_what_can_t_be_made_is_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_scalarization(name, 3, **options)


@pytest.mark.parametrize("method", ["dwa", "uw", "famo"])
def test_a_skipped_step_leaves_the_state_as_it_was(method: str) -> None:
    net = Net()
    balancer = LossBalancer(make_scalarization(method, len(TASKS)), on_non_finite="skip")
    balancer.backward(net.losses(*batch()))
    before = balancer.state_dict()
    losses = net.losses(*batch(1))
    info = balancer.backward({**losses, "b": losses["b"] * math.nan})
    assert (info.skipped, info.balanced) == (True, False)
    after = balancer.state_dict()
    assert str(after) == str(before)
    assert not balancer.backward(net.losses(*batch(2))).skipped


def test_a_length_can_t_be_kept_without_a_gramian() -> None:
    with pytest.raises(ValueError, match="`normalise` must be none or weights where losses are weighted, found 'length'"):
        LossBalancer(make_scalarization("uw", 3), normalise="length")


def test_a_backward_that_failed_leaves_nothing_behind() -> None:
    net = Net()
    balancer = LossBalancer(make_scalarization("equal", len(TASKS)), accumulation_steps=2)
    with pytest.raises(RuntimeError):
        balancer.backward({task: torch.ones(()) for task in TASKS})
    told = [balancer.backward(net.losses(*batch(step))).complete for step in range(2)]
    assert told == [False, True]
    parts = [sum(net.losses(*batch(step)).values()) / len(TASKS) for step in range(2)]
    wanted = torch.autograd.grad(sum(parts) / 2, net.trunk[0].weight)[0]
    assert torch.allclose(net.trunk[0].weight.grad, wanted, atol=1e-7)


def test_losses_after_a_step_are_of_the_same_tasks() -> None:
    net = Net()
    balancer = LossBalancer(make_scalarization("famo", len(TASKS)))
    losses = net.losses(*batch())
    balancer.backward(losses)
    with pytest.raises(ValueError, match="the same tasks"):
        balancer.after_step(dict(reversed(losses.items())))

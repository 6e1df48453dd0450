"""The balanced backward with a plain optimizer: gradients by hand, private parts, ranks, errors."""

from __future__ import annotations

import math

import pytest
import torch
from balance.nets import TASKS, Net, batch, task_gradients
from ranks import run_ranks
from torch import Tensor, nn
from torchjd.aggregation import UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from mtids_dist.balance import BalanceInfo, DDGBWeighting, GradientBalancer, NonFiniteGradientError, make_weighting


def test_shared_gradient_is_the_weighted_sum_and_private_ones_are_their_own() -> None:
    net = Net()
    J = task_gradients(net)
    info = GradientBalancer(net.trunk.parameters(), DDGBWeighting()).backward(net.losses(*batch()))
    assert torch.allclose(info.gramian, J @ J.T, rtol=1e-5)
    assert torch.allclose(info.weights, DDGBWeighting()(J @ J.T), rtol=1e-5)
    shared = torch.cat([p.grad.reshape(-1) for p in net.trunk.parameters()]).double()
    assert torch.allclose(shared, info.weights @ J, rtol=1e-4, atol=1e-7)
    own = torch.autograd.grad(net.losses(*batch())["b"], net.heads["b"].weight)[0]
    assert torch.allclose(net.heads["b"].weight.grad, own)


def test_upgrad_through_our_door_is_torchjd_s() -> None:
    net, theirs = Net(), Net()
    GradientBalancer(net.trunk.parameters(), make_weighting("upgrad")).backward(net.losses(*batch()))
    features = theirs.trunk(batch()[0])
    losses = [nn.functional.cross_entropy(theirs.heads[t](features), batch()[1][:, k]) for k, t in enumerate(TASKS)]
    mtl_backward(losses, features=features)
    jac_to_grad(theirs.trunk.parameters(), UPGrad())
    for mine, other in zip(net.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad, atol=1e-6)


def test_cosines_are_of_the_task_gradients() -> None:
    net = Net()
    J = nn.functional.normalize(task_gradients(net))
    info = GradientBalancer(net.trunk.parameters(), DDGBWeighting()).backward(net.losses(*batch()))
    assert torch.allclose(info.cosines, J @ J.T, atol=1e-5)


def gradients_on_rank(method: str) -> tuple[Tensor, BalanceInfo]:
    import torch.distributed as dist

    net, size = Net(), dist.get_world_size()
    x, y = (part.chunk(size)[dist.get_rank()] for part in batch())
    torch.manual_seed(100 + dist.get_rank())  # ranks draw different numbers
    info = GradientBalancer(net.trunk.parameters(), make_weighting(method)).backward(net.losses(x, y))
    return torch.cat([p.grad.reshape(-1) for p in net.parameters()]), info


@pytest.mark.slow
def test_two_ranks_without_an_engine_leave_the_mean_gradient_of_one() -> None:
    (reference, _), *_ = run_ranks(gradients_on_rank, 1, "ddgb")
    for gradient, _ in run_ranks(gradients_on_rank, 2, "ddgb"):
        assert torch.allclose(gradient, reference, atol=1e-6)


@pytest.mark.slow
def test_random_methods_use_rank_zero_s_draw() -> None:
    (first, info), (second, other) = run_ranks(gradients_on_rank, 2, "random")
    assert torch.equal(info.weights, other.weights)
    assert torch.equal(first, second)


def test_a_non_finite_gradient_is_named_and_nothing_moves() -> None:
    net = Net()
    losses = net.losses(*batch())
    losses["b"] = losses["b"] * math.nan
    with pytest.raises(NonFiniteGradientError, match="gradient of b on rank 0 is not finite"):
        GradientBalancer(net.trunk.parameters(), DDGBWeighting()).backward(losses)
    assert all(p.grad is None for p in net.parameters())


def test_state_goes_into_a_fresh_balancer() -> None:
    net = Net()
    first = GradientBalancer(net.trunk.parameters(), DDGBWeighting(beta=0.9))
    first.backward(net.losses(*batch()))
    second = GradientBalancer(net.trunk.parameters(), DDGBWeighting(beta=0.9))
    second.load_state_dict(first.state_dict())
    scaled = {task: loss * (k + 1) ** 2 for k, (task, loss) in enumerate(net.losses(*batch()).items())}
    again = {task: loss * (k + 1) ** 2 for k, (task, loss) in enumerate(net.losses(*batch()).items())}
    assert torch.equal(first.backward(scaled).weights, second.backward(again).weights)


def test_other_tasks_than_before_are_refused() -> None:
    net = Net()
    balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting())
    balancer.backward(net.losses(*batch()))
    with pytest.raises(ValueError, match="same tasks in every step"):
        balancer.backward({"a": net.losses(*batch())["a"]})


def test_gradients_that_share_memory_are_kept_apart() -> None:
    """The sum's gradient is one number expanded, and both terms of a sum may be given the same tensor."""
    shared = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))]
    private = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))]
    steps = torch.arange(4.0)
    losses = {"a": ((shared[0] + shared[1]) * steps).sum() + (private[0] + private[1]).sum(), "b": shared[0].sum()}
    GradientBalancer(shared, make_weighting("constant", weights=[0.5, 2.0])).backward(losses)
    nn.utils.clip_grad_value_(private, 0.25)  # in place
    assert torch.equal(shared[0].grad, 0.5 * steps + 2)
    assert torch.equal(shared[1].grad, 0.5 * steps)
    nn.utils.clip_grad_norm_(private, 0.1)
    assert all(torch.allclose(parameter.grad, torch.full((4,), 0.1 / 8**0.5)) for parameter in private)


def test_a_parameter_counts_once() -> None:
    net, other = Net(), Net()
    GradientBalancer(net.trunk.parameters(), make_weighting("equal")).backward(net.losses(*batch()))
    GradientBalancer([*other.trunk.parameters()] * 2, make_weighting("equal")).backward(other.losses(*batch()))
    assert torch.allclose(net.gradients(), other.gradients())


def test_a_backward_that_failed_leaves_nothing_behind() -> None:
    net, other = Net(), Net()
    balancer = GradientBalancer(net.trunk.parameters(), make_weighting("equal"), accumulation_steps=2)
    losses = net.losses(*batch())
    with pytest.raises(RuntimeError):
        balancer.backward({**losses, "b": torch.zeros(())})
    wanted = GradientBalancer(other.trunk.parameters(), make_weighting("equal"), accumulation_steps=2)
    for step in range(2):
        info, expected = balancer.backward(net.losses(*batch(step))), wanted.backward(other.losses(*batch(step)))
    assert info.complete
    assert torch.equal(info.gramian, expected.gramian)
    assert torch.equal(net.gradients(), other.gradients())


def test_a_private_gradient_that_is_not_finite_stops_the_step() -> None:
    net, root = Net(), nn.Parameter(torch.zeros(()))
    losses = net.losses(*batch())
    losses["b"] = losses["b"] + root.sqrt()
    with pytest.raises(NonFiniteGradientError):
        GradientBalancer(net.trunk.parameters(), DDGBWeighting()).backward(losses)
    assert all(p.grad is None for p in net.parameters())


def test_shared_parameters_are_among_all() -> None:
    net = Net()
    with pytest.raises(ValueError, match="one of `parameters`"):
        GradientBalancer(net.trunk.parameters(), DDGBWeighting(), parameters=net.heads.parameters())


def gradients_of_unlike_graphs() -> dict[str, Tensor]:
    """Rank 1 has no label for b, and a zero that meets its head's parameters in another order."""
    import torch.distributed as dist

    net = Net()
    losses = net.losses(*(part.chunk(2)[dist.get_rank()] for part in batch()))
    if dist.get_rank() == 1:
        losses["c"] = sum(p.sum() for p in net.heads["c"].parameters()) * 0
    own = torch.autograd.grad(sum(losses.values()), [*net.heads.parameters()], retain_graph=True)
    GradientBalancer(net.trunk.parameters(), DDGBWeighting(), parameters=net.parameters()).backward(losses)
    found = torch.cat([p.grad.reshape(-1) for p in net.heads.parameters()])
    return {"found": found, "own": torch.cat([g.reshape(-1) for g in own])}


@pytest.mark.slow
def test_graphs_may_differ_where_parameters_are_named() -> None:
    ranks = run_ranks(gradients_of_unlike_graphs, 2)
    wanted = (ranks[0]["own"] + ranks[1]["own"]) / 2
    assert all(torch.allclose(rank["found"], wanted, atol=1e-7) for rank in ranks)


@pytest.mark.parametrize("skip", [True, False])
def test_weights_that_are_not_finite_are_handed_to_nobody(skip: bool) -> None:
    """A loss can be nan though its gradient is not: DB-MTL sees its logarithm."""
    net = Net()
    weighting = make_weighting("db_mtl")
    balancer = GradientBalancer(net.trunk.parameters(), weighting, on_non_finite="skip" if skip else "stop")
    balancer.backward(net.losses(*batch()))
    before = [p.grad.clone() for p in net.parameters()]
    losses = net.losses(*batch(1))
    broken = {**losses, "b": losses["b"] + math.nan}
    if skip:
        assert balancer.backward(broken).skipped
    else:
        with pytest.raises(NonFiniteGradientError, match=r"the weight of .*b.* by DBMTLWeighting.* is not finite"):
            balancer.backward(broken)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))
    assert balancer.backward(net.losses(*batch(2))).weights.isfinite().all()

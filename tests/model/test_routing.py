"""The whole network against method.md's DBR, written a second time here, and what it must be in its limits."""

from __future__ import annotations

import copy

import pytest
import torch
from model_cases import SMALL, TASKS, random_crops, random_model

from mtids_dist.model import MTIDS, Routing

SEEDS = range(3)


def experts_of(model: MTIDS, z: torch.Tensor, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of the shared [B, M, W] and of the task's private experts [B, N, W]."""
    return tuple(
        torch.stack([alone(experts, e, z) for e in range(len(experts))], dim=1)
        for experts in (model.shared_experts, model.task_experts[task])
    )


def alone(experts: torch.nn.Module, e: int, z: torch.Tensor) -> torch.Tensor:
    """One expert [B, W] by torch's own modules, as if it were the only one."""
    width, channels = experts.weight.shape[1:3]
    conv, norm = torch.nn.Conv3d(channels, width, 3, padding=1, bias=False), torch.nn.GroupNorm(width // 8, width)
    conv.weight, norm.weight, norm.bias = (torch.nn.Parameter(rows[e].detach()) for rows in experts.parameters())
    return norm(conv(z)).relu().mean(dim=(2, 3, 4))


def mixed(weights: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return (weights[:, :, None] * outputs).sum(dim=1)


def context_of(model: MTIDS, z: torch.Tensor, task: str) -> torch.Tensor:
    own = [model.adaptors[task].block(z).flatten(2).mean(2)] if task in model.adaptors else []
    return torch.cat([z.flatten(2).mean(2), *own], dim=1)


@pytest.mark.parametrize("routing", ["dbr", "tied", "shared_context", "uniform"])
@pytest.mark.parametrize("seed", SEEDS)
def test_logits_follow_the_formula(seed: int, routing: str) -> None:
    temperatures = {} if routing == "uniform" else {"expert_temperature": 2.0}
    temperatures |= {"branch_temperature": 0.5} if routing in ("dbr", "shared_context") else {}
    model, crops = random_model(seed, routing=routing, **temperatures), random_crops(seed)
    z, logits = model.trunk(crops), model(crops)
    for task in TASKS:
        s, p = experts_of(model, z, task)
        gate = model.gating[task]
        pi_s, pi_p = torch.full(s.shape[:2], 1 / s.shape[1]), torch.full(p.shape[:2], 1 / p.shape[1])
        beta = torch.full((len(z), 2), 0.5)
        if routing != "uniform":
            q = context_of(model, z, task)
            a_s, a_p = (q @ rows.weight.T / 2.0 + rows.bias for rows in (gate.shared, gate.private))
            pi_s, pi_p = a_s.softmax(1), a_p.softmax(1)
            tied = torch.stack([a_s.exp().sum(1).log(), a_p.exp().sum(1).log()], 1)
            beta = (tied if routing == "tied" else q @ gate.branch.weight.T / 0.5 + gate.branch.bias).softmax(1)
        h = beta[:, :1] * mixed(pi_s, s) + beta[:, 1:] * mixed(pi_p, p)
        torch.testing.assert_close(logits[task], model.heads[task].linear(h))


def force_branch(model: MTIDS, shared: bool) -> None:
    with torch.no_grad():
        for gate in model.gating.values():
            gate.branch.bias.copy_(torch.tensor([1e4, -1e4] if shared else [-1e4, 1e4]))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_weight_on_the_shared_branch_is_mmoe(seed: int) -> None:
    model, crops = random_model(seed), random_crops(seed)
    force_branch(model, shared=True)
    z = model.trunk(crops)
    for task, logits in model(crops).items():
        rows = model.gating[task].shared
        s, _ = experts_of(model, z, task)
        pi = (context_of(model, z, task) @ rows.weight.T + rows.bias).softmax(1)
        torch.testing.assert_close(logits, model.heads[task].linear(mixed(pi, s)))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_weight_on_the_private_branch_is_one_expert_branch_a_task(seed: int) -> None:
    model, crops = random_model(seed), random_crops(seed)
    force_branch(model, shared=False)
    z, before = model.trunk(crops), model(crops)
    for task, logits in before.items():
        rows = model.gating[task].private
        _, p = experts_of(model, z, task)
        pi = (context_of(model, z, task) @ rows.weight.T + rows.bias).softmax(1)
        torch.testing.assert_close(logits, model.heads[task].linear(mixed(pi, p)))
    with torch.no_grad():
        for parameter in [*model.shared_experts.parameters(), *model.task_parameters("joint")]:
            parameter.add_(1.0)
    after = model(crops)
    assert all(torch.equal(before[task], after[task]) for task in ("region", "metastasis"))


@pytest.mark.parametrize("routing", ["dbr", "tied"])
def test_permuting_experts_with_their_gate_rows_changes_nothing(routing: str) -> None:
    model, crops = random_model(5, routing=routing), random_crops(5)
    before, shared_order, private_order = model(crops), [2, 0, 1], [1, 2, 0]
    permuted = copy.deepcopy(model)
    for experts, order in ((permuted.shared_experts, shared_order), (permuted.task_experts["metastasis"], private_order)):
        for parameter in experts.parameters():
            parameter.data = parameter.data[order]
    rows = [(permuted.gating[task].shared, shared_order) for task in TASKS] + [
        (permuted.gating["metastasis"].private, private_order)
    ]
    after_experts_only = permuted(crops)
    for gate_rows, order in rows:
        gate_rows.weight.data, gate_rows.bias.data = gate_rows.weight.data[order], gate_rows.bias.data[order]
    after = permuted(crops)
    for task in TASKS:
        torch.testing.assert_close(after[task], before[task])
        assert not torch.allclose(after_experts_only[task], before[task])


@pytest.mark.parametrize("routing", list(Routing))
def test_a_tasks_loss_leaves_other_tasks_parameters_alone(routing: Routing) -> None:
    model, crops = random_model(7, routing=routing), random_crops(7)
    parameters = {task: model.task_parameters(task) for task in TASKS}
    for task, logits in model(crops).items():
        for owner, owned in parameters.items():
            grads = torch.autograd.grad(logits.square().sum(), owned, retain_graph=True, allow_unused=True)
            if owner == task:
                assert all(g is not None for g in grads)
                assert any(g.abs().max() > 0 for g in grads)
            else:
                assert all(g is None or not g.any() for g in grads)


@pytest.mark.parametrize("routing", list(Routing))
def test_each_parameter_is_shared_or_of_one_task(routing: Routing) -> None:
    model = random_model(0, routing=routing)
    owned = [*model.shared_parameters(), *(p for task in TASKS for p in model.task_parameters(task))]
    assert len(owned) == len({id(p) for p in owned})
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}
    shared = {id(p) for p in model.shared_parameters()}
    names = {name.split(".")[0] for name, p in model.named_parameters() if id(p) in shared}
    assert names == ({"trunk"} if routing is Routing.HARD else {"trunk", "shared_experts"})


@pytest.mark.parametrize("trunk", ["small", "resnet10"])
def test_a_sample_is_unaffected_by_the_others(trunk: str) -> None:
    torch.manual_seed(0)
    model, crops = MTIDS(TASKS, **SMALL | {"trunk": trunk, "dropout": 0.5}).eval(), random_crops(3, shape=(16, 16, 16)).float()
    other = crops.clone()
    other[1:] = 50 * torch.randn_like(other[1:]) + 7
    together, alone = model(crops), model(other)
    for task in TASKS:
        torch.testing.assert_close(together[task][0], alone[task][0], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(together[task][1], alone[task][1])


def test_training_and_evaluation_agree_without_dropout() -> None:
    """No batch statistics anywhere, so that N ranks see what one rank sees."""
    model, crops = random_model(1), random_crops(1)
    trained = model.train()(crops)
    assert all(torch.equal(trained[task], logits) for task, logits in model.eval()(crops).items())


def test_gates_tell_the_weights_that_the_forward_pass_uses() -> None:
    model, crops = random_model(2, top_k=2), random_crops(2)
    use = model.gates(crops)
    assert [tuple(t.shape) for t in use["metastasis"]] == [(4, 2), (4, 3), (4, 3)]
    s, p = experts_of(model, model.trunk(crops), "metastasis")
    h = mixed(use["metastasis"].mixture(), torch.cat([s, p], dim=1))
    torch.testing.assert_close(model(crops)["metastasis"], model.heads["metastasis"].linear(h))
    assert random_model(2, routing="hard").gates(crops) == {}


def test_hard_sharing_reads_the_pooled_trunk() -> None:
    model, crops = random_model(4, routing="hard"), random_crops(4)
    pooled = model.trunk(crops).flatten(2).mean(2)
    for task, logits in model(crops).items():
        torch.testing.assert_close(logits, model.heads[task].linear(pooled))


def test_watched_gates_are_those_of_the_forward_pass_and_cost_no_pass_of_their_own() -> None:
    model, crops = random_model(3), random_crops(3)
    passes = []
    model.trunk.register_forward_hook(lambda *_: passes.append(1))
    with model.watched_gates() as use:
        model(random_crops(4))
        model(crops)
    assert len(passes) == 2
    for task, gate in model.gates(crops).items():
        for seen, expected in zip(use[task], gate, strict=True):
            torch.testing.assert_close(seen, expected)
    before = dict(use)
    model(random_crops(4))
    assert all(use[task] is before[task] for task in TASKS), "watching ends with the block"

"""Other expert counts with the same function: splits are exact, shrinking changes least, moments go along."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_cases import TASKS, random_crops, random_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from mtids_dist.model import MTIDS, Origin, ResizePlan, plan_resize, resize_experts
from mtids_dist.model.resize_plan import with_counts

EXACT = 1e-5
ONES = dict.fromkeys(TASKS, 1)
Moments = dict[str, dict[str, Tensor]]


@torch.no_grad()
def outputs(model: MTIDS, crops: Tensor) -> dict[str, Tensor]:
    training = model.training
    logits = model.eval()(crops)
    model.train(training)
    assert isinstance(logits, dict)
    return logits


def difference(a: MTIDS, b: MTIDS, crops: Tensor) -> float:
    before, after = outputs(a, crops), outputs(b, crops)
    return max(float((before[task] - after[task]).abs().max()) for task in before)


def total_variation(a: MTIDS, b: MTIDS, crops: Tensor) -> float:
    before, after = outputs(a, crops), outputs(b, crops)
    return max(float((before[t].softmax(1) - after[t].softmax(1)).abs().sum(1).mean() / 2) for t in before)


def counts(model: MTIDS) -> tuple[int, dict[str, int]]:
    return len(model.shared_experts), {task: len(model.experts_of(task)) for task in model.tasks}


@pytest.mark.parametrize("routing", ["dbr", "tied", "shared_context"])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_growing_keeps_every_logit(routing: str, temperature: float) -> None:
    branch = 1.0 if routing == "tied" else temperature
    model = random_model(
        1, shared_experts=2, task_experts=1, routing=routing, expert_temperature=temperature, branch_temperature=branch
    ).float()
    crops = random_crops(2).float()
    three = resize_experts(model, shared_experts=3)
    six = resize_experts(three, shared_experts=6, task_experts=4)
    assert (counts(three), counts(six)) == ((3, ONES), (6, dict.fromkeys(TASKS, 4)))
    assert difference(model, three, crops) < EXACT
    assert difference(model, six, crops) < EXACT
    assert counts(model) == (2, ONES), "the old network stays as it is"
    assert six.config.num_params(TASKS).total == sum(p.numel() for p in six.parameters())
    assert all(parameter.requires_grad for parameter in six.parameters())


@given(
    seed=st.integers(0, 1000),
    before=st.tuples(*[st.integers(1, 3)] * 4),
    more=st.tuples(*[st.integers(0, 3)] * 4),
    temperature=st.sampled_from([0.2, 1.0, 4.0]),
)
def test_any_counts_can_grow_at_once(seed: int, before: tuple[int, ...], more: tuple[int, ...], temperature: float) -> None:
    def of(numbers: tuple[int, ...]) -> dict[str, Any]:
        return {"shared_experts": numbers[0], "task_experts": dict(zip(TASKS, numbers[1:], strict=True))}

    after = tuple(a + b for a, b in zip(before, more, strict=True))
    model, crops = random_model(seed, expert_temperature=temperature, **of(before)), random_crops(seed + 1)
    for sample in (None, crops):
        grown = resize_experts(model, **of(after), sample=sample)
        assert counts(grown) == (after[0], of(after)["task_experts"])
        assert difference(model, grown, crops) < 1e-10


def test_the_most_used_expert_is_split_where_use_is_known() -> None:
    model = random_model(3, shared_experts=3, task_experts=1)
    with torch.no_grad():
        for gate in model.gating.values():
            gate.shared.bias.copy_(torch.tensor([0.0, 6.0, 0.0]))
    plan = plan_resize(model, shared_experts=5, sample=random_crops(4))
    assert [origin.sources for origin in plan.shared] == [(0,), (1,), (1,), (1,), (2,)]
    evenly = plan_resize(model, shared_experts=5)
    assert sorted(origin.copies for origin in evenly.shared) == [1, 2, 2, 2, 2]


def train(model: MTIDS, optimizer: torch.optim.Optimizer, crops: Tensor, steps: int) -> None:
    """Steps with the same task weights for every network."""
    labels = torch.arange(len(crops))
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(crops)
        losses = {task: cross_entropy(logits[task], labels % classes) for task, classes in TASKS.items()}
        (0.5 * losses["joint"] + losses["region"] + 2 * losses["metastasis"]).backward()
        optimizer.step()


def moments_of(model: MTIDS, optimizer: torch.optim.Optimizer) -> Moments:
    return {name: dict(optimizer.state[parameter]) for name, parameter in model.named_parameters()}


def with_moments(model: MTIDS, optimizer: torch.optim.Optimizer, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    for name, parameter in model.named_parameters():
        optimizer.state[parameter].update({kind: value.clone() for kind, value in moments[name].items()})


def moved(model: MTIDS, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def split_and_step(make: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], ResizePlan]:
    """How the original and the grown network move in the step after a split."""
    crops = random_crops(6, batch=8)
    model = random_model(5, shared_experts=2, task_experts=1)
    optimizer = make(model.parameters())
    train(model, optimizer, crops, 3)
    plan = plan_resize(model, shared_experts=5, task_experts=3)
    grown = plan.apply(model)
    grown_optimizer = make(grown.parameters())
    with_moments(grown, grown_optimizer, plan.apply_to_moments(moments_of(model, optimizer)))
    before, grown_before = ({n: p.detach().clone() for n, p in m.named_parameters()} for m in (model, grown))
    train(model, optimizer, crops, 1)
    train(grown, grown_optimizer, crops, 1)
    return moved(model, before), moved(grown, grown_before), plan


def pairs(original: Mapping[str, Tensor], grown: Mapping[str, Tensor], plan: ResizePlan) -> list[tuple[Tensor, Tensor, int]]:
    """(how the original moved, how its copy moved, number of copies) of everything that was split."""
    found = []
    for branch, prefix, gates in [
        (plan.shared, "shared_experts", [(task, "shared") for task in TASKS]),
        *((plan.private[task], f"task_experts.{task}", [(task, "private")]) for task in TASKS),
    ]:
        for new, origin in enumerate(branch):
            rows = [f"{prefix}.{part}" for part in ("weight", "norm_weight", "norm_bias")]
            rows += [f"gating.{task}.{branch_name}.{kind}" for task, branch_name in gates for kind in ("weight", "bias")]
            found += [(original[name][origin.sources[0]], grown[name][new], origin.copies) for name in rows]
    return found


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_first_adamw_step_moves_every_copy_as_the_original(weight_decay: float) -> None:
    # Adam's epsilon is out of the way: a copy's smaller moments feel it sooner.
    original, grown, plan = split_and_step(lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=weight_decay, eps=1e-12))
    for was, copy, _ in pairs(original, grown, plan):
        assert float((was - copy).abs().max()) < EXACT
    assert min(float(was.abs().max()) for was, _, _ in pairs(original, grown, plan) if was.dim() == 5) > 5e-4
    for name in ("trunk.blocks.0.conv.weight", "heads.joint.linear.weight", "adaptors.region.block.conv.weight"):
        assert float((original[name] - grown[name]).abs().max()) < EXACT


def test_plain_sgd_moves_each_of_c_copies_one_cth_as_far() -> None:
    original, grown, plan = split_and_step(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9))
    for was, copy, copies in pairs(original, grown, plan):
        assert torch.allclose(was / copies, copy, rtol=1e-6, atol=1e-12)


def test_merging_the_copies_gives_back_weights_and_moments() -> None:
    crops = random_crops(8, batch=8)
    model = random_model(7, shared_experts=2, task_experts=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer, crops, 3)
    moments = moments_of(model, optimizer)
    there = plan_resize(model, shared_experts=6, task_experts=3)
    grown = there.apply(model)
    back = plan_resize(grown, shared_experts=2, task_experts=1, sample=crops)
    again = back.apply(grown)
    assert back.change is not None
    assert back.change < 1e-9
    assert difference(model, again, crops) < 1e-9
    found = back.apply_to_moments(there.apply_to_moments(moments))
    for name, state in moments.items():
        if not name.startswith(("shared_experts", "gating")):  # the two shared experts may have changed places
            for kind, value in state.items():
                assert torch.allclose(found[name][kind], value, atol=1e-12), (name, kind)


def test_names_are_those_of_the_new_network() -> None:
    model = random_model(9)
    plan = plan_resize(model, shared_experts=2, task_experts={"joint": 3, "region": 1}, sample=random_crops(10))
    resized = plan.apply(model)
    assert set(plan.apply_to_weights(model.state_dict())) == set(resized.state_dict())
    moments = {name: {"exp_avg": torch.zeros_like(p), "step": torch.tensor(4.0)} for name, p in model.named_parameters()}
    found = plan.apply_to_moments(moments)
    assert set(found) == {name for name, _ in resized.named_parameters()}
    assert all(float(state["step"]) == 4.0 for state in found.values())


def test_an_expert_that_nobody_uses_is_given_up() -> None:
    model = random_model(11, shared_experts=4, task_experts=1)
    with torch.no_grad():
        for gate in model.gating.values():
            gate.shared.bias[2] = -40.0
    plan = plan_resize(model, shared_experts=3, sample=random_crops(12))
    assert plan.change is not None
    assert plan.change < 1e-9
    kept = [source for origin in plan.shared for source in origin.sources]
    assert kept == [0, 1, 3] or sum(2 in origin.sources and len(origin.sources) > 1 for origin in plan.shared) == 1


def every_way_to_give_up_one(experts: int, use: Tensor) -> list[tuple[Origin, ...]]:
    alone = [Origin((i,), (1.0,)) for i in range(experts)]
    ways = [tuple(o for o in alone if o.sources != (i,)) for i in range(experts)]
    for a, b in combinations(range(experts), 2):
        share = float((use[a] / (use[a] + use[b])).detach())
        merged = Origin((a, b), (share, 1 - share))
        ways.append(tuple(merged if i == a else alone[i] for i in range(experts) if i != b))
    return ways


@pytest.mark.parametrize("seed", range(4))
def test_no_other_way_to_shrink_changes_less(seed: int) -> None:
    model, crops = random_model(seed, shared_experts=4, task_experts=2), random_crops(seed + 50, batch=16)
    plan = plan_resize(model, shared_experts=3, sample=crops)
    assert plan.change == pytest.approx(total_variation(model, plan.apply(model), crops), rel=1e-9)
    gates = model.eval().gates(crops)
    use = torch.stack([gate.shared.mean(0) for gate in gates.values()]).mean(0)
    private = {task: tuple(Origin((i,), (1.0,)) for i in range(2)) for task in TASKS}
    config = with_counts(model.config, 3, dict.fromkeys(TASKS, 2))
    others = [ResizePlan(config=config, shared=way, private=private) for way in every_way_to_give_up_one(4, use)]
    changes = [total_variation(model, other.apply(model), crops) for other in others]
    assert plan.change == pytest.approx(min(changes), rel=1e-6)
    assert plan.change < max(changes)


def test_growing_under_top_k_takes_the_split_that_changes_least_and_says_so() -> None:
    model, crops = random_model(13, shared_experts=4, task_experts=1, top_k=2), random_crops(14, batch=16)
    plan = plan_resize(model, shared_experts=5, sample=crops)
    assert plan.change == pytest.approx(total_variation(model, plan.apply(model), crops), rel=1e-9)
    changes = []
    for chosen in range(4):
        shared = tuple(Origin((i,), (1.0,), 2 if i == chosen else 1) for i in range(4) for _ in range(2 if i == chosen else 1))
        other = ResizePlan(config=plan.config, shared=shared, private=plan.private)
        changes.append(total_variation(model, other.apply(model), crops))
    assert plan.change == pytest.approx(min(changes), rel=1e-9)


def test_growing_is_exact_where_top_k_keeps_everything() -> None:
    model, crops = random_model(15, shared_experts=2, task_experts=1, top_k=4), random_crops(16)
    plan = plan_resize(model, shared_experts=4, sample=crops)
    assert difference(model, plan.apply(model), crops) < 1e-10
    assert plan.change == pytest.approx(0.0, abs=1e-12)


def test_uniform_experts_can_be_doubled_exactly() -> None:
    model, crops = random_model(17, routing="uniform", shared_experts=2, task_experts=1), random_crops(18)
    assert difference(model, resize_experts(model, shared_experts=4, task_experts=2), crops) < 1e-10


def test_noise_tells_copies_apart_and_touches_nothing_else() -> None:
    model, crops = random_model(19, shared_experts=2, task_experts=1), random_crops(20)
    plan = plan_resize(model, shared_experts=3)
    noisy, same, other = (plan.apply(model, noise=0.01, seed=seed) for seed in (1, 1, 2))
    weights, old = noisy.shared_experts.weight.detach(), model.shared_experts.weight.detach()
    copies = [i for i, origin in enumerate(plan.shared) if origin.copies == 2]
    (alone,) = {0, 1, 2} - set(copies)
    assert not torch.equal(weights[copies[0]], weights[copies[1]])
    assert torch.equal(weights[alone], old[plan.shared[alone].sources[0]])
    drift = (weights[copies[0]] - old[plan.shared[copies[0]].sources[0]]).std() / weights[copies[0]].std()
    assert 0.005 < float(drift) < 0.02
    for task in TASKS:
        assert torch.equal(noisy.task_experts[task].weight, model.task_experts[task].weight)
    assert difference(noisy, same, crops) == 0
    assert difference(noisy, other, crops) > 0
    assert difference(noisy, model, crops) < 0.1


@pytest.mark.parametrize(
    "settings", [{"shared_experts": 0, "task_experts": 2}, {"shared_experts": 2, "task_experts": 0}], ids=str
)
def test_a_branch_without_experts_stays_so(settings: dict[str, int]) -> None:
    model, crops = random_model(25, **settings), random_crops(26)
    more = {name: 3 for name, count in settings.items() if count}
    plan = plan_resize(model, **more, sample=crops)
    assert plan.change == pytest.approx(0.0, abs=1e-12)
    assert difference(model, plan.apply(model), crops) < 1e-10


@pytest.mark.parametrize("noise", [-1.0, float("nan")])
def test_noise_is_a_deviation(noise: float) -> None:
    with pytest.raises(ValueError, match="noise must be finite and not negative"):
        resize_experts(random_model(23), shared_experts=4, noise=noise)


@pytest.mark.parametrize(
    ("settings", "change", "told"),
    [
        ({"routing": "hard"}, {"shared_experts": 2}, "routing must not be hard"),
        ({}, {"task_experts": {"other": 2}}, "task_experts must name tasks of joint, region, metastasis, found 'other'"),
        ({}, {"shared_experts": 0}, "shared_experts must be at least 1 .* found 0"),
        ({"task_experts": 0}, {"task_experts": 1}, "task_experts of 'joint' must stay 0 .* found 1"),
        ({}, {"shared_experts": 2}, "sample must be given to shrink shared_experts from 3 to 2"),
        ({}, {"shared_experts": 3.0}, "shared_experts must be a whole number, found 3.0"),
        ({}, {"task_experts": {"region": 2.5}, "sample": random_crops(22)}, "task_experts of 'region' must be a whole number"),
        ({}, {"task_experts": [3, 3]}, "must be a whole number"),
        ({}, {"shared_experts": 2, "sample": random_crops(22)[:0]}, "sample must be a tensor .* at least one crop"),
        ({}, {"shared_experts": 2, "sample": random_crops(22) * float("nan")}, "sample must be a tensor .* all finite"),
    ],
)
def test_what_can_not_be_done_is_said(settings: dict[str, Any], change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan_resize(random_model(21, **settings), **change)

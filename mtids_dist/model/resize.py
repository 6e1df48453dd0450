"""Choosing how expert counts change: which experts to split, which one or which pair to give up.

Under soft gates every split keeps the function, so the most used experts are split. Under top-k gates a copy can push
another expert out, and shrinking always changes something: there each step takes, of all that can be done, what changes
the class probabilities of a sample least.

Shape suffixes: B batch, E experts of one branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations

from torch import Tensor

from mtids_dist.model.config import Routing
from mtids_dist.model.mtids import MTIDS
from mtids_dist.model.output_change import OutputChange
from mtids_dist.model.resize_plan import SHARED, Branch, Origin, ResizePlan, unchanged, with_counts

Counts = dict[str | None, int]

SAME_CHANGE = 1e-7
"""Changes of class probabilities that differ by less differ by rounding."""


def plan_resize(
    model: MTIDS,
    *,
    shared_experts: int | None = None,
    task_experts: int | Mapping[str, int] | None = None,
    sample: Tensor | None = None,
) -> ResizePlan:
    """Plans another number of experts for `model`; counts that are not named stay, several can change at once.

    :param task_experts: one number for every task, or a number by task name.
    :param sample: crops [B, 1, D, H, W] of the data; what a change does is measured on them.
    :raises ValueError: hard sharing, an unknown task, a count that is no whole number, a branch that would begin or end without
        an expert (there is nothing to copy), a count that shrinks without a sample, or a sample that is none.
    """
    wanted, now = _wanted(model, shared_experts, task_experts), _counts(model)
    if sample is not None:
        _check_sample(sample)
    else:
        for branch, count in wanted.items():
            if count < now[branch]:
                raise ValueError(f"sample must be given to shrink {_named(branch)} from {now[branch]} to {count}, found None")
    plan = ResizePlan(
        config=model.config,
        shared=unchanged(now[SHARED]),
        private={task: unchanged(now[task]) for task in model.tasks},
    )
    measure = None if sample is None else OutputChange.of(model, sample)
    for branch, count in wanted.items():
        while (have := len(plan.branch(branch))) != count:
            if have < count:
                plan = _grown(model, plan, branch, measure)
            else:
                assert measure is not None
                plan = _shrunk(plan, branch, measure)
    return replace(plan, change=None if measure is None else measure.by(plan))


def resize_experts(
    model: MTIDS,
    *,
    shared_experts: int | None = None,
    task_experts: int | Mapping[str, int] | None = None,
    noise: float = 0.0,
    sample: Tensor | None = None,
    seed: int = 0,
) -> MTIDS:
    """A new network with `model`'s function and other expert counts; see `plan_resize` and `ResizePlan.apply`."""
    plan = plan_resize(model, shared_experts=shared_experts, task_experts=task_experts, sample=sample)
    return plan.apply(model, noise=noise, seed=seed)


def _grown(model: MTIDS, plan: ResizePlan, branch: str | None, measure: OutputChange | None) -> ResizePlan:
    """One expert more."""
    origins = plan.branch(branch)
    candidates = {origin.sources: _replaced(plan, branch, _split(origins, origin)) for origin in origins}
    if measure is not None and not model.config.keeps_function_when_growing:
        return min(candidates.values(), key=measure.by)

    def use_a_copy(origin: Origin) -> float:
        """As seats are given out by D'Hondt: copies in proportion to use; evenly where no use is known."""
        use = 1.0 if measure is None else float(measure.use[branch][list(origin.sources)].sum())
        return use / origin.copies

    return candidates[max(origins, key=use_a_copy).sources]


def _shrunk(plan: ResizePlan, branch: str | None, measure: OutputChange) -> ResizePlan:
    """One expert less. Of equals the first, a merge: it keeps what both have learned, and their moments."""
    ways = [_replaced(plan, branch, smaller) for smaller in _smaller(plan.branch(branch), measure.use[branch])]
    changes = [measure.by(way) for way in ways]
    return next(way for way, change in zip(ways, changes, strict=True) if change <= min(changes) + SAME_CHANGE)


def _smaller(origins: Branch, use_E: Tensor) -> Iterator[Branch]:
    """Every way to give up one expert: merge it into another one, by their use, or drop it."""
    for a, b in combinations(range(len(origins)), 2):
        merged = _merged(origins[a], origins[b], use_E)
        yield (*origins[:a], merged, *origins[a + 1 : b], *origins[b + 1 :])
    for index in range(len(origins)):
        yield origins[:index] + origins[index + 1 :]


def _merged(a: Origin, b: Origin, use_E: Tensor) -> Origin:
    sources = a.sources + b.sources
    use = use_E[list(sources)].double().clamp_min(1e-12)
    return Origin(sources, tuple((use / use.sum()).tolist()))


def _split(origins: Branch, chosen: Origin) -> Branch:
    """The chosen origin once more; its copies stand side by side."""
    shared = chosen._replace(copies=chosen.copies + 1)
    grown: list[Origin] = []
    for origin in origins:
        if origin.sources == chosen.sources:
            grown += [shared] if grown and grown[-1] == shared else [shared, shared]
        else:
            grown.append(origin)
    return tuple(grown)


def _wanted(model: MTIDS, shared: int | None, private: int | Mapping[str, int] | None) -> Counts:
    if model.config.routing is Routing.HARD:
        raise ValueError("routing must not be hard to resize experts: hard sharing has none")
    now = _counts(model)
    by_task = private if isinstance(private, Mapping) else {} if private is None else dict.fromkeys(model.tasks, private)
    for task in by_task:
        if task not in model.tasks:
            raise ValueError(f"task_experts must name tasks of {', '.join(model.tasks)}, found {task!r}")
    wanted = dict(now)
    wanted.update(by_task)
    if shared is not None:
        wanted[SHARED] = shared
    for branch, count in wanted.items():
        if type(count) is not int:
            raise ValueError(f"{_named(branch)} must be a whole number, found {count!r}")
        if count < 0 or (count == 0) != (now[branch] == 0):
            rule = "stay 0" if now[branch] == 0 else "be at least 1"
            raise ValueError(f"{_named(branch)} must {rule} when a network is resized, found {count}")
    return wanted


def _check_sample(sample: Tensor) -> None:
    if not isinstance(sample, Tensor) or sample.dim() != 5 or len(sample) == 0 or not bool(sample.isfinite().all()):
        found = f"{tuple(sample.shape)}" if isinstance(sample, Tensor) else type(sample).__name__
        raise ValueError(f"sample must be a tensor [B, 1, D, H, W] of at least one crop, all finite, found {found}")


def _counts(model: MTIDS) -> Counts:
    counts: Counts = {SHARED: len(model.shared_experts)}
    counts.update(model.config.experts_of(model.tasks))
    return counts


def _replaced(plan: ResizePlan, branch: str | None, origins: Branch) -> ResizePlan:
    if branch is SHARED:
        return _with_counts(replace(plan, shared=origins))
    return _with_counts(replace(plan, private={**plan.private, branch: origins}))


def _with_counts(plan: ResizePlan) -> ResizePlan:
    private = {task: len(origins) for task, origins in plan.private.items()}
    return replace(plan, config=with_counts(plan.config, len(plan.shared), private))


def _named(branch: str | None) -> str:
    return "shared_experts" if branch is SHARED else f"task_experts of {branch!r}"

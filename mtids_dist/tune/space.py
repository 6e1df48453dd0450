"""The space of a search: points in it, the jobs they mean, and what those cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from pydantic import ValidationError

from mtids_dist.errors import InputError
from mtids_dist.model import ModelConfig
from mtids_dist.train import TrainJob
from mtids_dist.tune.config import SHARED_EXPERTS, TASK_EXPERTS, Range, Scheduler, SearchConfig, is_count

Point = dict[str, Any]
"""Setting (dotted) -> value: what sets one member apart."""

Counts = dict[str, int]
"""`shared_experts` and `task_experts.<task>` -> number of experts."""

DRAWS = 1000
BETWEEN = (3 - 5**0.5) / 2
"""A place inside a range, irrational so that it is no whole number whatever whole numbers it lies between."""
BYTES_A_PARAMETER = 16
BYTES_A_TASK_GRADIENT = 4
FIXED = ("seed", "tasks", "data.store", "data.fold", "data.crop", "train.epochs", "train.scale", "train.init_from", "run")
"""Settings that make members incomparable, or that the search decides."""
COPIED = ("model.branch_temperature", "model.expert_temperature", "model.dropout")
"""The network's settings, beside its expert counts, that may differ between a copy and what it was copied from."""


def job_at(job: TrainJob, point: Mapping[str, Any]) -> TrainJob:
    """`job` with the point's settings.

    :raises InputError: an unknown setting, or a value that is not allowed.
    """
    tree = job.model_dump(mode="json")
    for key, value in point.items():
        _set(tree, key, value, job)
    try:
        return TrainJob.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{key}: {first['msg']}" if key else first["msg"], where="tune.space", found=first["input"]) from None


def _set(tree: dict[str, Any], key: str, value: Any, job: TrainJob) -> None:
    *parents, last = key.split(".")
    below: Any = tree
    for depth, parent in enumerate(parents):
        if ".".join(parents[: depth + 1]) == TASK_EXPERTS and not isinstance(below[parent], Mapping):
            below[parent] = dict.fromkeys(job.tasks, below[parent])
        below = below.get(parent) if isinstance(below, Mapping) else None
    # The options of a balancing method are the method's own: there a new key is right.
    if not isinstance(below, dict) or (last not in below and parents[-1:] != ["options"]):
        near = get_close_matches(key, list(_leaves(tree)), n=1, cutoff=0.0)
        raise InputError(f"unknown setting {key}, did you mean {near[0]}?", where="tune.space")
    below[last] = value


def _leaves(tree: Mapping[str, Any], path: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        key = f"{path}.{name}" if path else name
        found += _leaves(value, key) if isinstance(value, Mapping) and value else [key]
    return found


def check_space(job: TrainJob, config: SearchConfig) -> None:
    """What can be said of a space before anything starts.

    :raises InputError: a setting that can't be searched, an unknown one, a value that is not allowed, epochs that are no
        multiple of the generations, a population that can't copy, limits that no network is within.
    """
    if config.scheduler is Scheduler.PBT and config.members == 1:
        raise InputError("a population of one has nobody to copy", where="tune.members", found=1, allowed="2 or more")
    for key, values in config.space.items():
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
            raise InputError(f"{key} can't be searched: members would not be comparable", where="tune.space")
        _check_values(job, key, values)
        if config.scheduler is Scheduler.PBT and key.startswith("model.") and not is_count(key) and key not in COPIED:
            allowed = f"{SHARED_EXPERTS}, {TASK_EXPERTS}, {', '.join(COPIED)}"
            raise InputError(f"pbt can't search {key}: a copied network can't change it", where="tune.space", allowed=allowed)
    if job.train.epochs % config.generations:
        raise InputError(
            "a generation is a whole number of epochs",
            where="train.epochs",
            found=job.train.epochs,
            allowed=f"a multiple of tune.generations, {config.generations}",
        )
    for point in config.initial:
        for key, value in point.items():
            _check_initial(job, key, value, config.space[key])
    first_points(job, config, number=config.members)


def _check_values(job: TrainJob, key: str, values: tuple[Any, ...] | Range) -> None:
    if not isinstance(values, Range):
        for value in values:
            job_at(job, {key: value})
        return
    job_at(job, {key: values.low})
    job_at(job, {key: values.high})
    try:
        job_at(job, {key: values.low + BETWEEN * (values.high - values.low)})
    except InputError:
        raise InputError(
            f"{key} takes whole numbers: a range draws fractions",
            where="tune.space",
            found=f"low {values.low:g}, high {values.high:g}",
            allowed="a rising list, as [1, 2, 4]",
        ) from None


def _check_initial(job: TrainJob, key: str, value: Any, values: tuple[Any, ...] | Range) -> None:
    if isinstance(values, Range):
        inside = isinstance(value, int | float) and values.low <= value <= values.high
        allowed = f"{values.low:g} to {values.high:g}"
    else:
        inside, allowed = value in values, ", ".join(map(str, values))
    if not inside:
        raise InputError(f"{key} begins outside the space", where="tune.initial", found=value, allowed=allowed)
    job_at(job, {key: value})


def first_points(job: TrainJob, config: SearchConfig, *, number: int) -> list[Point]:
    """The settings that `number` members begin with, drawn with the job's seed; all within the limits.

    :raises InputError: no network of the space is small enough, or a given point is not.
    """
    rng = np.random.default_rng(job.seed)
    limit = limits(job, config)
    points = []
    for index in range(number):
        given = config.initial[index] if index < len(config.initial) else {}
        if set(given) == set(config.space) and (why := limit(given)):
            raise InputError(f"member {index} of tune.initial is too large: {why}", where="tune.initial")
        points.append(_drawn_within(config, given, rng, limit))
    return points


def _drawn_within(config: SearchConfig, given: Mapping[str, Any], rng: np.random.Generator, limit: Limit) -> Point:
    why = ""
    for _ in range(DRAWS):
        point = {key: _draw(values, rng) for key, values in config.space.items()} | dict(given)
        why = limit(point)
        if not why:
            return point
    raise InputError(f"no network of the space was within the limits in {DRAWS} draws: {why}", where="tune.space")


def _draw(values: tuple[Any, ...] | Range, rng: np.random.Generator) -> Any:
    if not isinstance(values, Range):
        return values[rng.integers(len(values))]
    if values.log:
        return float(np.exp(rng.uniform(np.log(values.low), np.log(values.high))))
    return float(rng.uniform(values.low, values.high))


Limit = Callable[[Mapping[str, Any]], str]
"""Says why a point is too large; empty where it is not."""


def limits(job: TrainJob, config: SearchConfig) -> Limit:
    """The search's limits on a network, known before it is built."""

    def too_large(point: Mapping[str, Any]) -> str:
        model = job_at(job, {key: value for key, value in point.items() if key.startswith("model.")}).model
        parameters, memory_mib = model.num_params(job.num_classes).total, memory_of(model, job)
        if config.max_parameters is not None and parameters > config.max_parameters:
            return f"{parameters:,} parameters, tune.max_parameters is {config.max_parameters:,}"
        if config.max_memory_mib is not None and memory_mib > config.max_memory_mib:
            return f"{memory_mib:.1f} MiB of model states, tune.max_memory_mib is {config.max_memory_mib}"
        return ""

    return too_large


def memory_of(model: ModelConfig, job: TrainJob) -> float:
    """MiB of model states on one rank without ZeRO: weights, gradients, two moments, and a gradient of the shared
    parameters for each task."""
    count = model.num_params(job.num_classes)
    size = BYTES_A_PARAMETER * count.total + BYTES_A_TASK_GRADIENT * len(job.tasks) * count.shared
    return size / 2**20


def counts_of(model: ModelConfig, job: TrainJob) -> Counts:
    """The expert counts of a network, by name."""
    of_task = {f"task_experts.{task}": count for task, count in model.experts_of(job.num_classes).items()}
    return {"shared_experts": model.shared_experts, **of_task}

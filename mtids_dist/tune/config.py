"""Settings of a search: what is searched, by whom, and for how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveInt, Tag, model_validator

from mtids_dist.settings import Settings


class Scheduler(str, Enum):
    """Ray Tune's schedulers behind the same door."""

    PBT = "pbt"
    ASHA = "asha"
    RANDOM = "random"


class Resize(str, Enum):
    """What a member does that copies a network and is to have other expert counts."""

    PRESERVE = "preserve"
    REINITIALISE = "reinitialise"


class Range(Settings):
    """Numbers from low to high."""

    low: float
    """the smallest value"""
    high: float
    """the largest value"""
    log: bool = False
    """whether equal ratios are equally likely, instead of equal differences"""

    @model_validator(mode="after")
    def _rises(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range must rise from low to high, found {self.low:g} to {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 in a logarithmic range, found {self.low:g}")
        return self


def _kind_of(values: Any) -> str:
    return "range" if isinstance(values, Mapping | Range) else "list"


Values = Annotated[Annotated[tuple[Any, ...], Tag("list")] | Annotated[Range, Tag("range")], Discriminator(_kind_of)]
"""Told apart by what is written, so that an error speaks of one of them."""

DEFAULT_SPACE: Mapping[str, tuple[Any, ...] | Range] = {
    "model.shared_experts": (1, 2, 4, 8),
    "model.task_experts": (1, 2, 4),
    "train.optimizer.learning_rate": Range(low=1e-4, high=1e-2, log=True),
    "balance.options.tau": Range(low=0.0, high=1.0),
}


class SearchConfig(Settings):
    """A search over settings of a run, expert counts above all. `train.epochs` are shared out over the generations."""

    scheduler: Scheduler = Scheduler.PBT
    """pbt (population-based training) | asha (successive halving) | random"""
    space: Mapping[str, Values] = Field(default_factory=lambda: dict(DEFAULT_SPACE))
    """setting -> rising list of its values, or {low, high, log}; `model.task_experts.<task>` counts one task's experts"""
    members: PositiveInt = 8
    """networks in the population; with asha and random, how many are paid for: the budget is members x generations"""
    generations: PositiveInt = 10
    """how often the population is compared; train.epochs has to be a multiple of it"""
    initial: tuple[Mapping[str, Any], ...] = ()
    """settings that the first members begin with; what they leave open, and the other members, are drawn from the space"""
    synchronous: bool = True
    """pbt: whether members wait for each other after each generation; if not, fast ones are compared with what slower ones
    had when they were last compared"""
    quantile: float = Field(0.25, gt=0.0, le=0.5)
    """pbt: share of the population that copies, and that is copied"""
    resample: float = Field(0.25, ge=0.0, le=1.0)
    """pbt: how likely a copied setting is drawn anew instead of moved to a neighbour"""
    resize: Resize = Resize.PRESERVE
    """pbt: preserve the copied function when expert counts change | reinitialise the network"""
    resize_noise: NonNegativeFloat = 0.01
    """noise on the weights of experts that were split, relative to their standard deviation: without it copies stay alike"""
    sample_rows: PositiveInt = 128
    """training crops that a change of expert counts is measured on"""
    max_change: float = Field(0.05, ge=0.0, le=1.0)
    """largest change that shrinking may make (mean total-variation distance of class probabilities); above it a member
    keeps the count it copied"""
    max_parameters: PositiveInt | None = None
    """largest network, in parameters"""
    max_memory_mib: PositiveInt | None = None
    """largest model states in MiB: 16 bytes a parameter (weight, gradient, two moments) and 4 bytes a task and shared
    parameter (the tasks' gradients); activations are not counted"""
    concurrent: PositiveInt | None = None
    """members that train at the same time; none: as many as the cluster's CPUs and GPUs allow"""
    reduction_factor: int = Field(2, ge=2)
    """asha: one in so many goes on at each rung"""
    max_failures: int = Field(1, ge=0)
    """how often a member whose process was lost is tried again before it is dropped"""

    @model_validator(mode="after")
    def _values_are_ordered(self) -> SearchConfig:
        if not self.space:
            raise ValueError("space: at least one setting must be searched, found none")
        for key, values in self.space.items():
            if isinstance(values, Range):
                continue
            if not values:
                raise ValueError(f"space: {key} needs at least one value")
            if is_count(key) and not all(type(value) is int and value >= 1 for value in values):
                raise ValueError(f"space: {key} takes whole numbers from 1, found {list(values)}")
            numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(numbers) == len(values) and list(values) != sorted(set(values)):
                raise ValueError(f"space: {key} must be a rising list: pbt moves to neighbours in it, found {list(values)}")
        both = [key for key in self.space if key.startswith(f"{TASK_EXPERTS}.")]
        if both and TASK_EXPERTS in self.space:
            raise ValueError(f"space: either {TASK_EXPERTS} or {', '.join(both)}, not both")
        return self

    @model_validator(mode="after")
    def _initial_is_in_space(self) -> SearchConfig:
        if len(self.initial) > self.members:
            raise ValueError(f"initial must name at most {self.members} members, found {len(self.initial)}")
        for point in self.initial:
            for key in point:
                if key not in self.space:
                    raise ValueError(f"initial: {key} is not searched; space has {', '.join(self.space)}")
        return self

    @property
    def compares_generations(self) -> bool:
        """Whether all members are compared after the same generation."""
        return self.scheduler is Scheduler.PBT and self.synchronous

    @property
    def budget(self) -> int:
        """Generations that may be trained, over all members."""
        return self.members * self.generations


SHARED_EXPERTS, TASK_EXPERTS = "model.shared_experts", "model.task_experts"


def is_count(key: str) -> bool:
    """Whether a setting is a number of experts."""
    return key in (SHARED_EXPERTS, TASK_EXPERTS) or key.startswith(f"{TASK_EXPERTS}.")

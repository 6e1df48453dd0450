"""A change of expert counts: where each new expert comes from, and what that makes of weights and of Adam's moments.

An expert that is split into c copies hands each of them its weights, its gate row and its gate bias, and log c less in the
gate's `log_share`, so the gate gives the copies together what it gave the one. Each copy then receives 1/c of the gradient:
with exp_avg / c and exp_avg_sq / c^2 Adam moves it as it would have moved the original, but for Adam's epsilon, which
smaller moments feel sooner. Experts that are merged become their weighted mean, with the logsumexp of what stands outside
the temperature; moments add up, which undoes a split exactly.

Shape suffix: S sources of one new expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mtids_dist.model.config import ModelConfig
from mtids_dist.model.mtids import MTIDS
from mtids_dist.model.params import nothing_allocated


class Origin(NamedTuple):
    """Where one new expert comes from."""

    sources: tuple[int, ...]
    """old experts by index: one is copied, several are merged"""
    weights: tuple[float, ...]
    """of each source in a merge; they sum to 1"""
    copies: int = 1
    """how many new experts share these sources"""


SHARED = None
"""The key of the shared branch, beside the tasks' names."""

Branch = tuple[Origin, ...]
"""One origin for every expert that a branch will have."""

Combine = Callable[[Tensor, Origin], Tensor]
"""Old values [S, ...] of the sources -> the new expert's value [...]."""


def unchanged(experts: int) -> Branch:
    """The plan of a branch that stays as it is."""
    return tuple(Origin((index,), (1.0,)) for index in range(experts))


@dataclass(frozen=True, kw_only=True)
class ResizePlan:
    """How a network's expert counts change; made by `plan_resize`.

    :param config: the settings with the new counts.
    :param shared: origins of the shared experts.
    :param private: {task: origins of its private experts}.
    :param change: how far the output moves: the mean total-variation distance (0 to 1) between class probabilities before
        and after over the sample, of the task where it is largest; None where no sample was given (growing under soft
        gates is exact to rounding).
    """

    config: ModelConfig
    shared: Branch
    private: Mapping[str, Branch]
    change: float | None = None

    def branch(self, key: str | None) -> Branch:
        """Origins of the shared branch, or of a task's."""
        return self.shared if key is SHARED else self.private[key]

    def apply(self, model: MTIDS, *, noise: float = 0.0, seed: int = 0) -> MTIDS:
        """A new network with `model`'s function and the new counts; `model` stays as it is.

        :param noise: standard deviation of what is added to the convolutions of copied experts, relative to that of their
            own weights: without it copies receive the same gradients for ever.
        :param seed: of the noise.
        """
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be finite and not negative, found {noise:g}")
        weights = self.apply_to_weights(model.state_dict(), noise=noise, seed=seed)
        with nothing_allocated():
            resized = self.config.build(model.tasks)
        resized.load_state_dict({name: value.clone() for name, value in weights.items()}, assign=True)
        return resized.train(model.training)

    def apply_to_weights(self, weights: Mapping[str, Tensor], *, noise: float = 0.0, seed: int = 0) -> dict[str, Tensor]:
        """Weights by parameter name, for the new counts; see `apply`."""
        generator = torch.Generator().manual_seed(seed)
        taken = dict(self._taken(weights, mean_of_rows))
        for task in self.private:
            for rows, branch in (("shared", self.shared), ("private", self.private[task])):
                prefix = f"gating.{task}.{rows}"
                if f"{prefix}.bias" in weights:
                    bias, log_share = weights[f"{prefix}.bias"], weights[f"{prefix}.log_share"]
                    taken[f"{prefix}.bias"], taken[f"{prefix}.log_share"] = _offsets(bias, log_share, branch)
        return {name: self._with_noise(name, value, noise, generator) for name, value in taken.items()}

    def apply_to_moments(self, moments: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Optimizer state {parameter name: {exp_avg, exp_avg_sq, momentum_buffer, ...: value}} for the new counts.

        What is no such moment (Adam's step count) is taken over from the expert's first source.
        """
        kinds = dict.fromkeys(kind for state in moments.values() for kind in state)
        found: dict[str, dict[str, Tensor]] = {}
        for kind in kinds:
            combine = _MOMENTS.get(kind, _first)
            of_kind = {name: state[kind] for name, state in moments.items() if kind in state}
            for name, value in self._taken(of_kind, combine):
                found.setdefault(name, {})[kind] = value
        return found

    def _taken(self, values: Mapping[str, Tensor], combine: Combine) -> Iterator[tuple[str, Tensor]]:
        """Every value under its name; where its rows are experts or choose them, with the new rows."""
        for name, value in values.items():
            branch = self._rows_of(name)
            # A scalar (a step count) has no rows, and belongs to all of them.
            if branch is None or value.dim() == 0:
                yield name, value
            else:
                yield name, torch.stack([combine(value[list(origin.sources)], origin) for origin in branch])

    def _rows_of(self, name: str) -> Branch | None:
        """The branch whose experts are the rows of the tensor of this name."""
        part, *path = name.split(".")
        if part == "shared_experts":
            return self.shared
        if part == "task_experts":
            return self.private[path[0]]
        if part == "gating" and path[1] in ("shared", "private"):
            return self.shared if path[1] == "shared" else self.private[path[0]]
        return None

    def _with_noise(self, name: str, value: Tensor, noise: float, generator: torch.Generator) -> Tensor:
        branch = self._rows_of(name)
        if noise == 0 or branch is None or name.startswith("gating.") or not name.endswith(".weight"):
            return value
        return torch.stack(
            [
                row if origin.copies == 1 else row + noise * row.std() * torch.randn(row.shape, generator=generator).to(row)
                for row, origin in zip(value, branch, strict=True)
            ]
        )


def with_counts(config: ModelConfig, shared: int, private: Mapping[str, int]) -> ModelConfig:
    """The settings with other expert counts; one number where all tasks have the same."""
    counts = set(private.values())
    return replace(config, shared_experts=shared, task_experts=counts.pop() if len(counts) == 1 else dict(private))


def mean_of_rows(values_S: Tensor, origin: Origin) -> Tensor:
    """The sources' weighted mean; a copy of the one where there is one."""
    if len(origin.sources) == 1:
        return values_S[0].clone()
    mean: Tensor = torch.tensordot(values_S.new_tensor(origin.weights), values_S, dims=1)
    return mean


def _offsets(bias_E: Tensor, log_share_E: Tensor, branch: Branch) -> tuple[Tensor, Tensor]:
    """Biases and log shares for the new experts: together the logsumexp of the sources', less log of the copies."""
    biases, shares = [], []
    for origin in branch:
        sources = list(origin.sources)
        share = log_share_E[sources].logsumexp(dim=0)
        biases.append((bias_E + log_share_E)[sources].logsumexp(dim=0) - share)
        shares.append(share - math.log(origin.copies))
    return torch.stack(biases), torch.stack(shares)


def _sum(values_S: Tensor, origin: Origin) -> Tensor:
    return values_S.sum(dim=0) / origin.copies


def _sum_of_roots(values_S: Tensor, origin: Origin) -> Tensor:
    merged: Tensor = values_S.sqrt().sum(dim=0).square() / origin.copies**2
    return merged


def _first(values_S: Tensor, _origin: Origin) -> Tensor:
    return values_S[0].clone()


_MOMENTS: Mapping[str, Combine] = {"exp_avg": _sum, "exp_avg_sq": _sum_of_roots, "momentum_buffer": _sum}

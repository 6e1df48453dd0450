"""What happens when a gradient has nan or inf in it."""

from __future__ import annotations

from typing import Literal, get_args

from mtids_dist.errors import WorkFailedError

OnNonFinite = Literal["stop", "skip"]


class NonFiniteGradientError(WorkFailedError):
    """A task's gradient has nan or inf in it: no weights can be agreed on, and nothing was handed over."""


def check_on_non_finite(value: str) -> None:
    """:raises ValueError: another value than stop or skip."""
    if value not in get_args(OnNonFinite):
        raise ValueError(f"`on_non_finite` must be one of {', '.join(get_args(OnNonFinite))}, found {value!r}")


def describe(broken: list[list[int]], tasks: tuple[str, ...]) -> str:
    """`broken`: pairs of rank and task."""
    return ", ".join(f"{tasks[task]} on rank {rank}" for rank, task in broken) or "their mean over ranks"

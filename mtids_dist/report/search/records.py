"""The lines of history.jsonl and the events of lineage.json that a page shows, as the search wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from mtids_dist.errors import InputError

Number = float | None
"""None where it was infinite, not a number, or never measured."""
Counts = Mapping[str, NonNegativeInt]
"""`shared_experts` and `task_experts.<task>` -> number of experts."""
SHARED, OF_TASK = "shared_experts", "task_experts"
Settings = Mapping[str, Any]
"""Dotted setting -> value."""


class Record(BaseModel):
    """What is read of one line; a later version may write more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Start(Record):
    """The result that a generation goes on from: of the member itself, or of the donor that it copies."""

    member: int
    generation: int
    id: str


class Begun(Record):
    """The settings that a member begins with."""

    member: int
    settings: Settings


class Result(Record):
    """One generation that a member has trained; without a score where training failed."""

    id: str
    generation: int
    member: int
    settings: Settings
    start: Start | None
    score: Number
    counts: Counts | None
    parameters: int | None = None
    loss_before: Number = None
    loss_after: Number = None
    error: str | None = None

    @property
    def donor(self) -> Start | None:
        """Whom it was copied from; None where the member went on from its own, or from nothing."""
        return self.start if self.start is not None and self.start.member != self.member else None


class Copy(Record):
    """A decision that a member goes on as a copy; trained only where a result of the member follows."""

    generation: int
    member: int
    settings: Settings
    start: Start


class End(Record):
    """A member that trains no more."""

    event: Literal["stopped", "dropped"]
    member: int
    generation: int
    error: str | None = None


class LineageEvent(Record):
    """One copy of lineage.json; `generation` is the donor's."""

    generation: int
    member: int
    donor: int
    counts_before: Counts | None
    counts_after: Counts | None
    loss_before: Number = None
    loss_after: Number = None
    change: Number = None
    refused: str | None = None


class Plan(Record):
    """What run.yaml says of the search, under `tune`."""

    scheduler: str = ""
    synchronous: bool = True
    members: int | None = None
    generations: int | None = None
    space: Mapping[str, Any] = {}
    resize: str = "preserve"

    @property
    def copies(self) -> bool:
        """Whether members of this search copy each other."""
        return self.scheduler == "pbt"


_R = TypeVar("_R", bound=Record)


def read_record(model: type[_R], data: Any, where: str | Path) -> _R:
    """Data as a record; InputError that names the first thing wrong with it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"this can't be read: {key + ': ' if key else ''}{first['msg']}", where=str(where)) from None

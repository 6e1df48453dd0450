"""Lines of a run, a search or a preparation -> samples of our series. Pure: what becomes of a sample is no business here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from mtids_dist.observe import series as s
from mtids_dist.observe.series import Series

Line = Mapping[str, Any]
SHARED, PRIVATE = BRANCHES = ("shared", "private")


class Sample(NamedTuple):
    """A value of a series; `labels` are the values of the series' own labels, in their order."""

    series: Series
    value: float
    labels: tuple[str, ...] = ()


def pair(one: str, other: str) -> str:
    """The label of two tasks."""
    return f"{one}/{other}"


def training_samples(line: Line) -> list[Sample]:
    """What a line of metrics.jsonl says; a number that is not there (a task without a label in the batch) gives no sample."""
    if line["kind"] == "step":
        return _known(_of_step(line))
    return _known(_of_validation(line)) if line["kind"] == "validation" else []


def _of_step(line: Line) -> Iterator[tuple[Any, ...]]:
    yield from _by_task(s.LOSS, line["loss"])
    yield from _by_task(s.TASK_WEIGHT, line["weights"])
    for (i, one), (j, other) in combinations(enumerate(line["tasks"]), 2):
        yield s.GRADIENT_COSINE, line["cosines"][i][j], (pair(one, other),)
    yield s.SAMPLES_PER_SECOND, line["samples_per_s"]
    yield s.DATA_WAIT_RATIO, line["data_wait_share"]
    yield s.LEARNING_RATE, line["learning_rate"]
    yield s.STEP, line["step"]
    yield s.EPOCH, line["epoch"]


def _of_validation(line: Line) -> Iterator[tuple[Any, ...]]:
    yield from _by_task(s.VALIDATION_LOSS, line["loss"])
    yield s.EPOCH, line["epoch"]
    for task, gate in line["gates"].items():
        for branch, weight in zip(BRANCHES, gate["branch"], strict=True):
            yield s.BRANCH_USE, weight, (task, branch)
        shared = len(gate["shared"])
        for place, weight in enumerate(gate["use"]):
            branch, expert = (SHARED, place) if place < shared else (PRIVATE, place - shared)
            yield s.EXPERT_USE, weight, (task, branch, str(expert))


def _by_task(series: Series, values: Mapping[str, float | None]) -> Iterator[tuple[Any, ...]]:
    for task, value in values.items():
        yield series, value, (task,)


def _known(found: Iterator[tuple[Any, ...]]) -> list[Sample]:
    return [Sample(*parts) for parts in found if parts[1] is not None]


def crop_samples(*, node_rows: int, prepared: int, rejected: int) -> list[Sample]:
    """How far a preparation has come."""
    return [Sample(s.NODE_ROWS, node_rows), Sample(s.CROPS_PREPARED, prepared), Sample(s.CROPS_REJECTED, rejected)]


class SearchSamples:
    """Takes up the lines of a search's history, which tell of one member each, and says where the search stands."""

    def __init__(self) -> None:
        self.results = 0
        self._generation, self._failed = 0, 0
        self._best: float | None = None
        self._longest_s: float | None = None
        self._last_s: float | None = None

    def __call__(self, line: Line) -> list[Sample]:
        """The state of the search after this line."""
        if line["event"] in ("started", "resumed"):
            self.results, self._generation, self._failed = line["trained"], line["generation"], line["failed"]
            self._best, self._last_s = line["best_score"], line["time_s"]
        elif line["event"] == "result":
            self._take_result(line)
        elif line["event"] == "dropped":
            self._failed += 1
        return self._state()

    def _take_result(self, line: Line) -> None:
        self.results += 1
        self._generation = max(self._generation, line["generation"])
        self._last_s = line["time_s"]
        if line["score"] is None:
            self._failed += 1
            return
        self._best = _extreme(min, self._best, line["score"])
        self._longest_s = _extreme(max, self._longest_s, line["ended_s"] - line["began_s"])

    def _state(self) -> list[Sample]:
        found: Sequence[tuple[Series, float | None]] = (
            (s.SEARCH_GENERATION, self._generation),
            (s.SEARCH_RESULTS, self.results),
            (s.SEARCH_BEST_SCORE, self._best),
            (s.SEARCH_MEMBERS_FAILED, self._failed),
            (s.SEARCH_GENERATION_SECONDS, self._longest_s),
            (s.SEARCH_LAST_RESULT, self._last_s),
        )
        return _known(iter(found))


def _extreme(choose: Any, known: float | None, value: float) -> float:
    return value if known is None else float(choose(known, value))

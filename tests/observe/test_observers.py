"""Watching never ends the work, and what fails is told once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from observe.recorded_lines import HISTORY, METRICS

from mtids_dist.observe import Observers, Series, each, observers, of_search, of_training, series
from mtids_dist.observe.gauges import Gauges
from mtids_dist.observe.observers import _leave
from mtids_dist.observe.samples import Sample


class Notes:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def show(self, samples: Sequence[Sample], step: int, /) -> None:
        assert samples
        self.steps.append(step)


class FullDisk:
    def show(self, samples: Sequence[Sample], step: int, /) -> None:
        raise OSError(28, "No space left on device")

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        raise OSError(28, "No space left on device")


def test_one_that_fails_is_told_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    notes, seen = Notes(), []
    listener = each(seen.append, of_training(Observers([FullDisk(), notes])))
    for line in METRICS:
        listener(line)
    assert seen == METRICS, "the display gets every line"
    assert notes.steps == [line["step"] for line in METRICS if line["kind"] != "event"]
    assert [record.message for record in caplog.records] == ["FullDisk is told nothing more: [Errno 28] No space left on device"]


def test_one_that_cannot_be_closed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _leave(FullDisk(), None, None, None)
    assert "was not closed" in caplog.text


def test_a_search_counts_its_results_as_steps() -> None:
    notes = Notes()
    listener = of_search(Observers([notes]))
    for line in HISTORY[3:]:
        listener(line)
    assert notes.steps[0] == 0
    assert notes.steps[-1] == sum(line["event"] == "result" for line in HISTORY)


def test_without_a_cluster_nobody_watches(tmp_path: Path) -> None:
    with observers(tmp_path, on_cluster=False) as watching:
        assert watching._observers == []
    assert list(tmp_path.iterdir()) == []


def test_a_gauge_that_ray_refuses_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = Series("mtids_bad", "train", "Its label is no text.", (1,))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING), Gauges("run") as gauges:
        for step in range(3):
            gauges.show([Sample(bad, 1.0, ("x",)), Sample(series.STEP, step)], step)
    assert [record.message for record in caplog.records] == [
        "ray_mtids_bad is not exported any more: Tag keys must be str, got <class 'int'>."
    ]

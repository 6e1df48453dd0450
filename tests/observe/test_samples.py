"""Recorded lines become samples: every series of the table, the lines' own numbers, and no label but the few it names."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from observe.recorded_lines import EXPERTS, HISTORY, METRICS, TASKS

from mtids_dist.observe import SERIES, series
from mtids_dist.observe.samples import Sample, SearchSamples, crop_samples, training_samples
from mtids_dist.tune import History
from mtids_dist.tune.driver import _stand

STEP = next(line for line in METRICS if line["kind"] == "step")
VALIDATION = next(line for line in METRICS if line["kind"] == "validation")


def all_samples() -> list[Sample]:
    search = SearchSamples()
    found = [sample for line in METRICS for sample in training_samples(line)]
    found += [sample for line in HISTORY for sample in search(line)]
    return found + crop_samples(node_rows=9, prepared=7, rejected=2)


def values(samples: list[Sample], of: series.Series) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples if sample.series is of}


def test_every_series_of_the_table_is_filled_by_what_was_recorded() -> None:
    assert {sample.series for sample in all_samples()} == set(SERIES)


def test_labels_are_the_few_that_the_table_names() -> None:
    """A label of a patient, a node or a file could only come from a line: here is all that labels ever hold."""
    known = {
        "task": set(TASKS),
        "pair": {"bright/upper"},
        "branch": set(EXPERTS),
        "expert": {str(i) for i in range(max(EXPERTS.values()))},
    }
    seen: dict[str, set[str]] = {label: set() for label in known}
    for sample in all_samples():
        assert len(sample.labels) == len(sample.series.labels)
        for label, value in zip(sample.series.labels, sample.labels, strict=True):
            seen[label].add(value)
    assert seen == known
    most = len(TASKS) * sum(EXPERTS.values())
    assert max(len(values(all_samples(), one)) for one in SERIES) == most, "experts of every task"


def test_names_are_unique_and_ours() -> None:
    assert len({one.name for one in SERIES}) == len(SERIES)
    assert all(one.name.startswith("mtids_") and one.exported == f"ray_{one.name}" for one in SERIES)


def test_a_step_gives_its_own_numbers() -> None:
    found = training_samples(STEP)
    assert values(found, series.LOSS) == {(task,): STEP["loss"][task] for task in TASKS}
    assert values(found, series.TASK_WEIGHT) == {(task,): STEP["weights"][task] for task in TASKS}
    assert values(found, series.GRADIENT_COSINE) == {("bright/upper",): STEP["cosines"][0][1]}
    alone = {series.SAMPLES_PER_SECOND: "samples_per_s", series.DATA_WAIT_RATIO: "data_wait_share", series.STEP: "step"}
    for one, key in (alone | {series.LEARNING_RATE: "learning_rate", series.EPOCH: "epoch"}).items():
        assert values(found, one) == {(): STEP[key]}


def test_a_validation_gives_its_losses_and_the_gates_use() -> None:
    found = training_samples(VALIDATION)
    assert values(found, series.VALIDATION_LOSS) == {(task,): VALIDATION["loss"][task] for task in TASKS}
    use, branch = values(found, series.EXPERT_USE), values(found, series.BRANCH_USE)
    for task in TASKS:
        for name, experts in EXPERTS.items():
            of_experts = [use[task, name, str(i)] for i in range(experts)]
            assert sum(of_experts) == pytest.approx(branch[task, name]), "an expert stands in its own branch"
        assert sum(branch[task, name] for name in EXPERTS) == pytest.approx(1)


def test_a_task_without_a_label_in_the_batch_has_no_loss_there() -> None:
    line = copy.deepcopy(STEP)
    line["loss"]["upper"] = None
    assert values(training_samples(line), series.LOSS) == {("bright",): STEP["loss"]["bright"]}


def test_a_network_without_gates_has_no_use_of_experts() -> None:
    found = training_samples({**VALIDATION, "gates": {}})
    assert {sample.series for sample in found} == {series.VALIDATION_LOSS, series.EPOCH}


def test_a_search_stands_where_its_history_says() -> None:
    search = SearchSamples()
    for line in HISTORY:
        found = search(line)
    results = [line for line in HISTORY if line["event"] == "result"]
    good = [line for line in results if line["score"] is not None]
    assert 0 < len(good) < len(results), "a failure was recorded, too"
    expected = {
        series.SEARCH_RESULTS: len(results),
        series.SEARCH_GENERATION: 3,
        series.SEARCH_MEMBERS_FAILED: len(results) - len(good),
        series.SEARCH_BEST_SCORE: min(line["score"] for line in good),
        series.SEARCH_GENERATION_SECONDS: max(line["ended_s"] - line["began_s"] for line in good),
        series.SEARCH_LAST_RESULT: results[-1]["time_s"],
    }
    assert {sample.series: sample.value for sample in found} == pytest.approx(expected)


@pytest.mark.parametrize("cut", range(4, len(HISTORY)))
def test_a_search_that_goes_on_knows_what_came_before(tmp_path: Path, cut: int) -> None:
    """The driver's line says where it stands, so that a new process's gauges do."""
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in HISTORY[:cut]))
    whole, resumed = SearchSamples(), SearchSamples()
    for line in HISTORY[:cut]:
        before = whole(line)
    after = resumed({**_stand(History.open(tmp_path / "history.jsonl")), "time_s": 0.0})
    own = (series.SEARCH_GENERATION_SECONDS, series.SEARCH_LAST_RESULT)  # of this session
    assert [sample for sample in after if sample.series not in own] == [s for s in before if s.series not in own]

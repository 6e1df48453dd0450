from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from mtids_dist.data import TEST_FOLD, Split, Store
from mtids_dist.errors import InputError
from mtids_dist.evaluate import Evaluation, evaluate, predict_store, size_baseline, task_metrics
from mtids_dist.model import ModelConfig
from mtids_dist.tasks import Task

WINDOW = (0.0, 1000.0)


def _evaluate(model: nn.Module, store: Store, tasks: dict[str, Task], split: Split = Split.VALIDATION) -> Evaluation:
    return evaluate(model, store, tasks, split=split, held_out=0, window=WINDOW, batch_size=7, resamples=60)


def test_rows_keep_their_labels_through_batches(tiny_store: Store, reader: nn.Module, tasks: dict[str, Task]) -> None:
    for batch_size in (1, 7, 1000):
        predictions = predict_store(reader, tiny_store, tasks, [1, 2], window=WINDOW, batch_size=batch_size)
        assert predictions.table().column("node").to_pylist() == tiny_store.labels([1, 2]).column("node").to_pylist()
        for task, p in predictions.probabilities.items():
            known = predictions.labels[task] >= 0
            np.testing.assert_array_equal(p.argmax(1)[known], predictions.labels[task][known])
            np.testing.assert_allclose(p.sum(1), 1.0)


def test_the_model_comes_back_in_its_mode_and_progress_is_told(
    tiny_store: Store, reader: nn.Module, tasks: dict[str, Task]
) -> None:
    told: list[tuple[int, int]] = []
    reader.train()
    predict_store(
        reader,
        tiny_store,
        tasks,
        [0],
        window=WINDOW,
        batch_size=20,
        progress=lambda done, total, text: told.append((done, total)),
    )
    assert reader.training
    assert told == [(20, 48), (40, 48), (48, 48)]


@pytest.mark.parametrize("split", list(Split))
def test_a_reader_of_the_truth_is_perfect_and_above_size(
    tiny_store: Store, reader: nn.Module, tasks: dict[str, Task], split: Split
) -> None:
    document = _evaluate(reader, tiny_store, tasks, split).document
    rows = {Split.TRAIN: 80, Split.VALIDATION: 48, Split.TEST: 36}[split]
    assert document["rows"] == document["tasks"]["region"]["n"] == rows
    assert document["tasks"]["metastasis"]["n"] == rows - -(-rows // 10)
    assert document["fused"]["joint"]["accuracy"] == document["tasks"]["joint"]["auc"] == 1.0
    metastasis = document["tasks"]["metastasis"]
    size = document["baselines"]["size_only"]["metastasis"]["auc"]
    assert 0.6 < size < 0.95
    assert metastasis["auc_above_size"] == pytest.approx(1.0 - size)
    low, high = metastasis["auc_above_size_ci95"]
    assert low < metastasis["auc_above_size"] < high
    above = [document["tasks"][t]["auc_above_size"] for t in ("region", "metastasis")]
    assert document["auc_above_size"] == pytest.approx(np.mean(above))
    assert np.trace(metastasis["confusion"]) == metastasis["n"]


def test_size_alone_learns_from_the_training_folds(tiny_store: Store, reader: nn.Module, tasks: dict[str, Task]) -> None:
    for split, evaluated in ((Split.VALIDATION, 0), (Split.TEST, TEST_FOLD)):
        expected = size_baseline(tiny_store.labels([1, 2]), tiny_store.labels([evaluated]), tasks)
        found = _evaluate(reader, tiny_store, tasks, split).baseline
        for task in tasks:
            np.testing.assert_array_equal(found.probabilities[task], expected.probabilities[task])


def test_gates_of_a_real_network_are_shares(tiny_store: Store, tasks: dict[str, Task]) -> None:
    torch.manual_seed(0)
    config = ModelConfig(trunk="small", shared_experts=2, task_experts=1)
    model = config.build({name: task.num_classes for name, task in tasks.items()})
    document = _evaluate(model, tiny_store, tasks).document
    assert set(document["gates"]) == set(tasks)
    for gate in document["gates"].values():
        assert gate["branch"] == pytest.approx([0.5, 0.5]), "gates start at zero"
        assert gate["use"] == pytest.approx([0.25, 0.25, 0.5])


def test_files_hold_what_was_measured(tiny_store: Store, reader: nn.Module, tasks: dict[str, Task], tmp_path: Path) -> None:
    evaluation = _evaluate(reader, tiny_store, tasks)
    evaluation.write(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["evaluation.json", "predictions.parquet"]
    document = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    table = pq.read_table(tmp_path / "run" / "predictions.parquet")
    assert table.column_names[:4] == ["node", "patient", "fold", "short_axis_mm"]
    assert str(table.schema.field("joint_fused_probabilities").type) == "list<element: float>"
    for task in tasks:
        labels = table.column(f"{task}_label").to_numpy()
        again = task_metrics(np.array(table.column(f"{task}_probabilities").to_pylist()), labels)
        assert again.to_json() == pytest.approx({k: document["tasks"][task][k] for k in again.to_json()})
        size = task_metrics(np.array(table.column(f"{task}_size_only_probabilities").to_pylist()), labels)
        assert size.auc == pytest.approx(document["tasks"][task]["size_only_auc"])


def test_the_same_seed_gives_the_same_document(tiny_store: Store, reader: nn.Module, tasks: dict[str, Task]) -> None:
    assert _evaluate(reader, tiny_store, tasks).document == _evaluate(reader, tiny_store, tasks).document


def test_mistakes_are_one_line(tiny_store: Store, reader: nn.Module, tasks: dict[str, Task]) -> None:
    wrong = {"grade": Task(column="grade", classes="binary")}
    with pytest.raises(InputError, match=r"task grade: the store has no such label column; found grade; allowed: station"):
        _evaluate(reader, tiny_store, wrong)
    with pytest.raises(InputError, match="no such fold; found 9"):
        evaluate(reader, tiny_store, tasks, split=Split.TEST, held_out=9, window=WINDOW)

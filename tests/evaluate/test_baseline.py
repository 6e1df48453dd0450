from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mtids_dist.evaluate import size_baseline, task_metrics
from mtids_dist.evaluate.baseline import encode, log_sizes
from mtids_dist.tasks import Task

TASKS = {
    "metastasis": Task(column="metastasis", classes="binary"),
    "region": Task(column="station", classes=("7", "8", "9")),
}


def _table(seed: int, rows: int = 400, missing: int = 0) -> pa.Table:
    generator = np.random.default_rng(seed)
    size = np.exp(generator.normal(2.0, 0.5, rows))
    metastasis = generator.random(rows) < 1 / (1 + np.exp(-3 * (np.log(size) - 2.0)))
    station = np.where(size < 5, "7", np.where(size < 9, "8", "9"))
    sizes = [None if i < missing else float(s) for i, s in enumerate(size)]
    columns = {"metastasis": metastasis.astype(np.int8), "station": station}
    return pa.table({**columns, "short_axis_mm": pa.array(sizes, pa.float32())})


def test_size_tells_what_size_can_tell() -> None:
    evaluated = _table(1)
    baseline = size_baseline(_table(0), evaluated, TASKS)
    for name, task in TASKS.items():
        p, labels = baseline.probabilities[name], encode(task, evaluated)
        np.testing.assert_allclose(p.sum(1), 1.0)
        metrics = task_metrics(p, labels)
        # For two classes no score from size can beat its own order; the middle class of three needs the square.
        if name == "metastasis":
            from sklearn.metrics import roc_auc_score

            assert metrics.auc == pytest.approx(roc_auc_score(labels, log_sizes(evaluated)[:, 0]), abs=0.01)
        else:
            assert metrics.auc is not None
            assert metrics.auc > 0.97


def test_it_never_sees_the_evaluated_labels() -> None:
    evaluated = _table(1)
    flipped = evaluated.set_column(0, "metastasis", pa.array(1 - evaluated.column("metastasis").to_numpy(), pa.int8()))
    a, b = (size_baseline(_table(0), t, TASKS).probabilities["metastasis"] for t in (evaluated, flipped))
    np.testing.assert_array_equal(a, b)


def test_missing_sizes_are_counted_and_predicted() -> None:
    baseline = size_baseline(_table(0, missing=50), _table(1, missing=20), TASKS)
    assert (baseline.missing_train, baseline.missing_evaluated) == (50, 20)
    p = baseline.probabilities["metastasis"]
    assert np.isfinite(p).all()
    np.testing.assert_array_equal(p[:20], np.broadcast_to(p[0], (20, 2)))


def test_a_size_of_zero_is_unknown() -> None:
    table = pa.table({"short_axis_mm": pa.array([0.0, 8.0, None], pa.float32())})
    np.testing.assert_allclose(log_sizes(table), [[np.nan], [np.log(8.0)], [np.nan]])


def test_what_can_not_be_fit_is_said() -> None:
    train = _table(0, rows=30)
    one_class = train.set_column(0, "metastasis", pa.array([1] * 30, pa.int8()))
    baseline = size_baseline(one_class, _table(1), TASKS)
    assert "fewer than two classes" in baseline.unfit["metastasis"]
    assert set(baseline.probabilities) == {"region"}
    assert "has a size" in size_baseline(_table(0, rows=30, missing=30), _table(1), TASKS).unfit["metastasis"]


def test_a_class_without_training_rows_gets_nothing() -> None:
    train = _table(0)
    train = train.filter(pa.array([s != "8" for s in train.column("station").to_pylist()]))
    p = size_baseline(train, _table(1), TASKS).probabilities["region"]
    assert (p[:, 1] == 0).all()
    np.testing.assert_allclose(p.sum(1), 1.0)

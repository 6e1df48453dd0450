from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mtids_dist.errors import WorkFailedError
from mtids_dist.evaluate import TaskMetrics, mean_auc, task_metrics
from mtids_dist.evaluate.metrics import confusion


def _case(seed: int, classes: int, rows: int = 80, missing: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    # Rounded scores make ties, which the area has to count by half.
    logits = np.round(generator.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels], 1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, np.where(generator.random(rows) < missing, -1, labels)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_two_classes_equal_sklearn(seed: int) -> None:
    p, labels = _case(seed, 2)
    known = labels >= 0
    metrics = task_metrics(p, labels)
    assert metrics.n == known.sum()
    assert metrics.auc == pytest.approx(roc_auc_score(labels[known], p[known, 1]))
    assert metrics.accuracy == pytest.approx((p[known].argmax(1) == labels[known]).mean())
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels[known], p[known].argmax(1)))


@given(seed=st.integers(0, 10_000), classes=st.integers(3, 6))
@settings(max_examples=15, deadline=None)
def test_several_classes_are_macro_one_vs_rest(seed: int, classes: int) -> None:
    p, labels = _case(seed, classes)
    known = labels >= 0
    expected = roc_auc_score(labels[known], p[known], multi_class="ovr", average="macro", labels=range(classes))
    assert task_metrics(p, labels).auc == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int, classes: int) -> None:
    p, labels = _case(seed, classes)
    order = np.random.default_rng(seed + 1).permutation(len(labels))
    a, b = task_metrics(p, labels).to_json(), task_metrics(p[order], labels[order]).to_json()
    assert a == pytest.approx(b)


def test_only_classes_present_count() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3], [0.3, 0.1, 0.6]])
    metrics = task_metrics(p, np.array([0, 2, 0, 0]))  # no row of class 1, but a prediction of it
    assert metrics.balanced_accuracy == pytest.approx((1 / 3 + 1) / 2)
    assert metrics.auc == pytest.approx((1.0 + 2 / 3) / 2)


def test_undefined_metrics_are_none() -> None:
    p = np.full((3, 2), 0.5)
    assert task_metrics(p, [-1, -1, -1]) == TaskMetrics(0, None, None, None)
    assert task_metrics(p, [1, 1, -1]).auc is None
    assert task_metrics(p, [1, 1, -1]).n == 2
    assert task_metrics(np.zeros((0, 2)), []).auc is None
    assert mean_auc([]) is None
    assert mean_auc([TaskMetrics(1, 1.0, 1.0, None), TaskMetrics(1, 1.0, 1.0, 0.5)]) == 0.5


def test_tensors_are_taken_and_json_holds_plain_numbers() -> None:
    p, labels = _case(3, 3)
    metrics = task_metrics(torch.tensor(p), torch.tensor(labels))
    assert metrics.to_json() == pytest.approx(task_metrics(p, labels).to_json())
    assert json.loads(json.dumps(metrics.to_json())) == metrics.to_json()


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(3, 2\) and \(2,\)"):
        task_metrics(np.ones((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="below the number of classes"):
        task_metrics(np.ones((2, 2)), [0, 2])
    with pytest.raises(WorkFailedError, match="not finite"):
        task_metrics([[np.nan, 1.0]], [0])


def test_confusion_rows_are_the_truth() -> None:
    p = np.eye(3)[[0, 1, 1, 2]]
    np.testing.assert_array_equal(confusion(p, [0, 0, 1, -1]), [[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert confusion(p, [-1] * 4).sum() == 0

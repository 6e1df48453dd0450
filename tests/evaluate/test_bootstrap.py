from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mtids_dist.evaluate import PatientBootstrap, bootstrap, interval, task_metrics
from mtids_dist.evaluate.bootstrap import weighted_auc


def _case(seed: int, rows: int = 120, classes: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, classes, rows)
    p = np.round(generator.dirichlet(np.ones(classes), rows) + 0.4 * np.eye(classes)[labels], 1)
    return p, labels, [f"p{i}" for i in generator.integers(0, 30, rows)]


@pytest.mark.parametrize("seed", range(5))
def test_weighted_auc_equals_sklearn_with_sample_weights(seed: int) -> None:
    p, labels, _ = _case(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (6, len(labels))).astype(float)
    ours = weighted_auc(p[:, 1], labels == 1, weights)
    for w, value in zip(weights, ours, strict=True):
        assert value == pytest.approx(roc_auc_score(labels == 1, p[:, 1], sample_weight=w))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_resample_is_the_metric_of_repeated_rows(classes: int) -> None:
    p, labels, patients = _case(1, classes=classes)
    draws = PatientBootstrap(patients, resamples=8, seed=4)
    values = draws.metrics(p, labels)
    weights = np.concatenate(list(draws.weights())).astype(int)
    for i, w in enumerate(weights):
        repeated = task_metrics(np.repeat(p, w, axis=0), np.repeat(labels, w))
        assert values["accuracy"][i] == pytest.approx(repeated.accuracy)
        assert values["balanced_accuracy"][i] == pytest.approx(repeated.balanced_accuracy)
        assert values["auc"][i] == pytest.approx(repeated.auc)


def test_whole_patients_are_drawn_and_the_seed_decides() -> None:
    _, _, patients = _case(2)
    weights = np.concatenate(list(PatientBootstrap(patients, 50, seed=7).weights()))
    for patient in set(patients):
        of_patient = weights[:, [p == patient for p in patients]]
        assert (of_patient == of_patient[:, :1]).all()
    again = np.concatenate(list(PatientBootstrap(patients, 50, seed=7).weights()))
    other = np.concatenate(list(PatientBootstrap(patients, 50, seed=8).weights()))
    np.testing.assert_array_equal(weights, again)
    assert (weights != other).any()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p, labels, patients = _case(3)
    whole = PatientBootstrap(patients, 40, seed=1).metrics(p, labels)["auc"]
    monkeypatch.setattr(bootstrap, "_BLOCK_VALUES", 7 * len(labels))
    np.testing.assert_array_equal(whole, PatientBootstrap(patients, 40, seed=1).metrics(p, labels)["auc"])


def test_intervals_cover_the_metric_and_narrow_with_patients() -> None:
    widths = []
    for rows in (100, 1600):
        p, labels, _ = _case(5, rows=rows)
        low, high = interval(PatientBootstrap([str(i) for i in range(rows)], 300).metrics(p, labels)["auc"]) or (0, 0)
        assert low < (task_metrics(p, labels).auc or 0) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_no_interval_where_there_is_no_spread() -> None:
    p, labels, _ = _case(6)
    assert interval(PatientBootstrap(["one"] * len(labels), 50).metrics(p, labels)["auc"]) is None
    assert interval(np.array([np.nan, np.nan, 0.5])) is None
    assert interval(PatientBootstrap(["a", "b"], 20).metrics([[0.5, 0.5]] * 2, [-1, -1])["accuracy"]) is None

from __future__ import annotations

import numpy as np
import pytest

from mtids_dist.data import TEST_FOLD
from mtids_dist.data.splits import assign_folds
from mtids_dist.stations import MEDIASTINAL


def _cohort(patients: int, seed: int) -> dict[str, list[tuple[str, ...]]]:
    rng = np.random.default_rng(seed)
    station = rng.dirichlet(np.full(len(MEDIASTINAL), 0.7))
    cohort = {}
    for i in range(patients):
        ill = rng.random() < 0.4
        nodes = range(1 + rng.poisson(4))
        cohort[f"P{i:03d}"] = [
            (f"station={rng.choice(MEDIASTINAL, p=station)}", f"metastasis={int(ill and rng.random() < 0.7)}") for _ in nodes
        ]
    return cohort


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_alike(seed: int) -> None:
    cohort = _cohort(120, seed)
    fold_of = assign_folds(cohort, folds=5, test_share=0.2, seed=seed)
    assert fold_of.keys() == cohort.keys()
    nodes = {fold: sum(len(cohort[p]) for p, f in fold_of.items() if f == fold) for fold in (TEST_FOLD, *range(5))}
    total = sum(nodes.values())
    assert nodes[TEST_FOLD] / total == pytest.approx(0.2, abs=0.02), f"seed {seed}"
    for fold in range(5):
        assert nodes[fold] / total == pytest.approx(0.16, abs=0.02), f"seed {seed}"
    flat = [(stratum, fold_of[p]) for p, of_patient in cohort.items() for node in of_patient for stratum in node]
    for stratum in {s for s, _ in flat}:
        count = sum(s == stratum for s, _ in flat)
        if count >= 30:
            in_test = sum(s == stratum and f == TEST_FOLD for s, f in flat)
            assert in_test / count == pytest.approx(0.2, abs=0.08), f"seed {seed} {stratum} {count}"


def test_same_seed_same_folds_whatever_the_order() -> None:
    cohort = _cohort(40, 0)
    first = assign_folds(cohort, folds=4, test_share=0.25, seed=7)
    backwards = {name: cohort[name][::-1] for name in reversed(cohort)}
    assert assign_folds(backwards, folds=4, test_share=0.25, seed=7) == first
    assert assign_folds(cohort, folds=4, test_share=0.25, seed=8) != first


@pytest.mark.parametrize("patients", [1, 2, 3, 5, 6, 7, 9, 30])
def test_no_fold_stays_empty_while_there_are_patients_enough(patients: int) -> None:
    cohort = _cohort(patients, patients)
    cohort["P000"] = cohort["P000"] * 50
    used = set(assign_folds(cohort, folds=5, test_share=0.2, seed=0).values())
    assert len(used) == min(patients, 6)


def test_no_test_share_no_test_list() -> None:
    assert TEST_FOLD not in assign_folds(_cohort(20, 1), folds=3, test_share=0.0, seed=0).values()
    assert assign_folds({}, folds=3, test_share=0.2, seed=0) == {}

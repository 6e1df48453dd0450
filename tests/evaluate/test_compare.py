from __future__ import annotations

from typing import Any

import pytest

from mtids_dist.errors import InputError
from mtids_dist.evaluate import compare


def _document(fold: int, auc: float, size: float | None = 0.6, other: float | None = 0.8) -> dict[str, Any]:
    return {
        "store": "s",
        "split": "validation",
        "fold": fold,
        "tasks": {"a": {"auc": auc}, "b": {"auc": other}},
        "baselines": {"size_only": {"a": {"auc": size}, "b": {"auc": 0.7}}},
    }


def test_lines_are_means_over_tasks_then_splits() -> None:
    result = compare({"dbr": [_document(1, 0.9), _document(0, 0.7)], "hard": [_document(0, 0.6), _document(1, 0.6)]})
    lines = result["lines"]
    assert result["splits"] == ["validation 0", "validation 1"]
    assert lines["dbr"]["by_split"] == pytest.approx([0.75, 0.85])
    assert lines["dbr"]["mean_auc"] == pytest.approx(0.8)
    assert lines["dbr"]["tasks"] == pytest.approx({"a": 0.8, "b": 0.8})
    assert lines["hard"]["mean_auc"] == pytest.approx(0.7)
    assert lines["size_only"]["mean_auc"] == pytest.approx(0.65)
    assert lines["dbr"]["above_size"] == pytest.approx(0.15)


def test_undefined_areas_are_left_out() -> None:
    lines = compare({"dbr": [_document(0, 0.9, size=None, other=None)]})["lines"]
    assert lines["dbr"]["mean_auc"] == 0.9
    assert lines["size_only"]["mean_auc"] == 0.7


def test_other_splits_are_not_compared() -> None:
    with pytest.raises(InputError, match="hard: not evaluated on the same splits as dbr"):
        compare({"dbr": [_document(0, 0.9)], "hard": [_document(1, 0.9)]})
    with pytest.raises(InputError, match="one evaluation a split"):
        compare({"dbr": [_document(0, 0.9), _document(0, 0.8)]})
    with pytest.raises(InputError, match="one evaluation a split"):
        compare({"dbr": []})

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mtids_dist.data import TEST_FOLD, StoreWriter, crop_column, draw_montage, open_store, summarise
from mtids_dist.data.rejections import Rejection, rejection_table
from mtids_dist.errors import InputError


def _store(path: Path, rows: int = 6) -> Path:
    writer = StoreWriter(path=path, crop_shape=(4, 6, 6), spacing_mm=1.5)
    writer.begin()
    parts = []
    for fold in (0, TEST_FOLD) if rows else ():
        table = pa.table(
            {
                "crop": crop_column(np.arange(rows * 144, dtype=np.int16).reshape(rows, 4, 6, 6)),
                "patient": [f"{fold}-{i // 2}" for i in range(rows)],
                "station": ["10R", "2R", None, "2R", "7", "7"][:rows],
                "short_axis_mm": [8.0, None] * (rows // 2),
                "outside": [0.25] * rows,
            }
        )
        parts.append(writer.write_part(fold, 0, table))
    rejected = [Rejection(kind="node", item="h", row=i, reason="outside_volume") for i in range(3)]
    rejected.append(Rejection(kind="file", item="f", row=None, reason="not_ct"))
    writer.finish(parts, made_by="test", folds=2, counts={"node_rows": 3 + 2 * rows}, rejected=rejection_table(rejected))
    return path


def test_summary_counts_labels_and_rejections(tmp_path: Path) -> None:
    summary = summarise(open_store(_store(tmp_path / "store")))
    assert summary.folds["0"].labels["station"] == {"2R": 2, "7": 2, "10R": 1, "missing": 1}
    assert list(summary.folds["0"].labels["station"]) == ["2R", "7", "10R", "missing"]
    assert summary.folds["test"].labels["metastasis"] == {"missing": 6}
    assert (summary.folds["1"].rows, summary.folds["0"].patients, summary.patients, summary.rows) == (0, 3, 6, 12)
    assert summary.rejected == {"node: outside_volume": 3, "file: not_ct": 1}
    assert summary.mean_outside == pytest.approx(0.25)
    text = str(summary)
    assert "12 crops of 4 x 6 x 6 voxels, 1.5 mm, hu; 6 patients" in text
    assert "rejected, node: outside_volume: 3" in text
    assert summary.to_json()["folds"]["test"]["rows"] == 6


def test_montage_is_a_picture(tmp_path: Path) -> None:
    store = open_store(_store(tmp_path / "store"))
    draw_montage(store, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"no such label column; found x; allowed: station, metastasis"):
        draw_montage(store, tmp_path / "m.png", column="x")
    with pytest.raises(InputError, match=r"the picture can't be written: No such file or directory"):
        draw_montage(store, tmp_path / "nowhere" / "m.png")


def test_an_empty_store_is_told_as_such(tmp_path: Path) -> None:
    store = open_store(_store(tmp_path / "store", rows=0))
    summary = summarise(store)
    assert summary.rows == 0
    assert "0 crops" in str(summary)
    with pytest.raises(InputError, match="nothing to draw"):
        draw_montage(store, tmp_path / "m.png")

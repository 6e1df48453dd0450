"""A store and a run description small enough to train on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from mtids_dist.data import StoreWriter, crop_column

SEED = 7
SIDE = 8


def make_store(path: Path, *, rows_per_fold: int = 48, folds: int = 3) -> Path:
    """Crops whose brightness tells `bright` and whose upper half tells `upper`; a tenth of the labels is missing."""
    rng = np.random.default_rng(SEED)
    writer = StoreWriter(
        path=path, crop_shape=(SIDE,) * 3, spacing_mm=1.0, labels={"bright": pa.int8(), "upper": pa.int8()}, value_kind="hu"
    )
    writer.begin()
    parts = [
        writer.write_part(fold, part, _rows(rng, fold, part, rows_per_fold // 2)) for fold in range(folds) for part in (0, 1)
    ]
    writer.finish(parts, made_by="test", folds=folds, counts={}, settings={}, input={})
    return path


def _rows(rng: np.random.Generator, fold: int, part: int, rows: int) -> pa.Table:
    bright, upper = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    crops = rng.normal(0, 60, (rows, SIDE, SIDE, SIDE)) + 80 * (2 * bright - 1)[:, None, None, None]
    crops[:, SIDE // 2 :] += 60 * (2 * upper - 1)[:, None, None, None]
    names = [f"{fold}-{part}-{i}" for i in range(rows)]
    return pa.table(
        {
            "crop": crop_column(crops.round().astype(np.int16)),
            "patient": [f"p{name}" for name in names],
            "series": [f"s{name}" for name in names],
            "node": [f"n{name}" for name in names],
            "station": pa.nulls(rows, pa.string()),
            "metastasis": pa.nulls(rows, pa.int8()),
            "short_axis_mm": pa.array(rng.uniform(5, 20, rows), pa.float32()),
            "position_mm": pa.nulls(rows, pa.list_(pa.float32(), 3)),
            "outside": pa.array(np.zeros(rows), pa.float32()),
            "fold": pa.array([fold] * rows, pa.int8()),
            "bright": pa.array([None if rng.random() < 0.1 else int(v) for v in bright], pa.int8()),
            "upper": pa.array([int(v) for v in upper], pa.int8()),
        }
    )


def write_description(path: Path, store: Path, **train: object) -> Path:
    """A run description beside the store, two tasks and two workers."""
    tree = {
        "run": str(path.with_suffix("")),
        "tasks": {"bright": {"column": "bright", "classes": "binary"}, "upper": {"column": "upper", "classes": "binary"}},
        "data": {"store": str(store), "batch_size": 4, "window": [-200, 200]},
        "model": {"channels": [8], "expert_width": 8, "context_width": 8},
        "train": {"epochs": 6, "scale": {"workers": 2, "zero_stage": 2, "gpus_per_worker": 0}, **train},
    }
    path.write_text(yaml.safe_dump(tree))
    return path

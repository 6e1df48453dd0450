"""configs/mtids.yaml as shipped, but for a small store of small crops, run by the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from mtids_dist.data import TEST_FOLD, StoreWriter, crop_column
from mtids_dist.stations import MEDIASTINAL

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "mtids.yaml"
SIDE, SEED, FOLDS, ROWS_A_FOLD = 16, 5, 3, 32
LIMIT_S = 300


def make_shipped_store(path: Path) -> Path:
    """Write crops [SIDE, SIDE, SIDE] whose brightness tells metastasis, in three folds and a locked test list."""
    rng = np.random.default_rng(SEED)
    writer = StoreWriter(path=path, crop_shape=(SIDE,) * 3, spacing_mm=1.0)
    writer.begin()
    parts = [writer.write_part(fold, 0, _rows(rng, fold)) for fold in (*range(FOLDS), TEST_FOLD)]
    writer.finish(parts, made_by="test", folds=FOLDS, counts={})
    return path


def _rows(rng: np.random.Generator, fold: int) -> pa.Table:
    metastasis = rng.integers(0, 2, ROWS_A_FOLD)
    crops = rng.normal(0, 60, (ROWS_A_FOLD, SIDE, SIDE, SIDE)) + 80 * (2 * metastasis - 1)[:, None, None, None]
    return pa.table(
        {
            "crop": crop_column(crops.round().astype(np.int16)),
            "patient": [f"patient{fold}-{i // 2}" for i in range(ROWS_A_FOLD)],
            "series": [f"series{fold}-{i // 2}" for i in range(ROWS_A_FOLD)],
            "node": [f"node{fold}-{i}" for i in range(ROWS_A_FOLD)],
            "station": rng.choice(list(MEDIASTINAL), ROWS_A_FOLD),
            "metastasis": pa.array([None if rng.random() < 0.1 else int(value) for value in metastasis], pa.int8()),
            "short_axis_mm": pa.array(rng.uniform(5, 20, ROWS_A_FOLD), pa.float32()),
        }
    )


def train_command(run: Path, store: Path, *, epochs: int, device: str) -> list[str]:
    """Return the command that trains the shipped description on the small store.

    On a CPU, which only tries the code, with a small trunk.
    """
    settings = {"run": run, "data.store": store, "data.crop": SIDE, "train.epochs": epochs, "train.scale.workers": 1}
    settings |= {"model.trunk": "small"} if device == "cpu" else {}
    return command("train", str(SHIPPED), *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")))


def command(*words: str) -> list[str]:
    """Return a verb of the product as this interpreter runs it, installed or not."""
    return [sys.executable, "-m", "mtids_dist", *words]


def call(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; both streams come back as text."""
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)

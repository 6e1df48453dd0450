from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from mtids_dist.data import TEST_FOLD, Store, StoreWriter, crop_column, open_store
from mtids_dist.tasks import Task

TASKS = {
    "joint": Task(column=("station", "metastasis"), classes=(("7", "8"), "binary")),
    "region": Task(column="station", classes=("7", "8")),
    "metastasis": Task(column="metastasis", classes="binary"),
}
SHAPE = (2, 3, 4)


class Reader(nn.Module):
    """Reads the truth that the tiny store hides in its voxels: 100 x joint class, plus 1 for each row."""

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        assert not self.training
        joint = ((crops[:, 0, 0, 0, 0] + 1) * 500).div(100, rounding_mode="floor").long()
        joint = nn.functional.one_hot(joint, 4).float() * 4
        pairs = joint.unflatten(1, (2, 2))
        return {"joint": joint, "region": pairs.amax(2), "metastasis": pairs.amax(1)}


def _rows(fold: int, patients: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    rows = patients * 4
    station, metastasis = generator.integers(0, 2, rows), generator.integers(0, 2, rows)
    crops = np.zeros((rows, *SHAPE), np.int16) + (100 * (2 * station + metastasis) + 50)[:, None, None, None].astype(np.int16)
    return pa.table(
        {
            "crop": crop_column(crops),
            "patient": [f"patient{fold}-{i // 4}" for i in range(rows)],
            "series": ["s"] * rows,
            "node": [f"node{fold}-{i}" for i in range(rows)],
            "station": np.array(["7", "8"])[station],
            "metastasis": pa.array([None if i % 10 == 0 else int(m) for i, m in enumerate(metastasis)], pa.int8()),
            "short_axis_mm": pa.array(np.exp(generator.normal(2 + 0.5 * metastasis, 0.5)), pa.float32()),
        }
    )


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path: Path = tmp_path_factory.mktemp("evaluate") / "store"
    writer = StoreWriter(path=path, crop_shape=SHAPE, spacing_mm=1.0, row_group_rows=8)
    writer.begin()
    sizes = {0: 12, 1: 10, 2: 10, TEST_FOLD: 9}
    parts = [writer.write_part(fold, 0, _rows(fold, patients, 10 + fold)) for fold, patients in sizes.items()]
    writer.finish(parts, made_by="test", folds=3, counts={})
    return open_store(path)


@pytest.fixture
def reader() -> nn.Module:
    torch.manual_seed(0)
    return Reader()


@pytest.fixture
def tasks() -> dict[str, Task]:
    return TASKS

"""A store whose rows can be told apart: every voxel of row i is i, and so is its label `row`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mtids_dist.data import Store, StoreWriter, crop_column, open_store
from mtids_dist.tasks import Task

ROWS_A_PART = 9
PARTS = {0: 3, 1: 2, 2: 2}
ROWS = ROWS_A_PART * sum(PARTS.values())
SHAPE = (2, 4, 4)
TASKS = {
    "row": Task(column="row", classes=[str(row) for row in range(ROWS)]),
    "side": Task(column="metastasis", classes="binary"),
}


def write_small_store(path: Path, shape: tuple[int, int, int] = SHAPE) -> Store:
    """7 parts of 9 rows in 3 folds; `metastasis` is row % 2 and missing where row % 3 == 0, station is missing throughout."""
    writer = StoreWriter(path=path, crop_shape=shape, spacing_mm=1.0, labels={"row": pa.int16()}, row_group_rows=4)
    writer.begin()
    parts, first = [], 0
    for fold, count in PARTS.items():
        for number in range(count):
            rows = np.arange(first, first + ROWS_A_PART)
            table = pa.table(
                {
                    "crop": crop_column(np.broadcast_to(rows[:, None, None, None], (ROWS_A_PART, *shape)).astype(np.int16)),
                    "patient": [f"p{first}"] * ROWS_A_PART,
                    "row": pa.array(rows, pa.int16()),
                    "metastasis": pa.array([int(row % 2) if row % 3 else None for row in rows], pa.int8()),
                }
            )
            parts.append(writer.write_part(fold, number, table))
            first += ROWS_A_PART
    writer.finish(parts, made_by="test", folds=len(PARTS), counts={"rows": ROWS})
    return open_store(path)

"""The columns of a store: their names, their types, and crops as arrays without a copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CROP = "crop"
"""The column of voxels, `arrow.fixed_shape_tensor` int16, axes z y x."""

ROW_INDEX = "row_index"
"""The column that `Store.batches` adds: the row's place in store order among the folds asked for."""

TEST_FOLD = -1
"""The fold number of the locked test list of patients."""

CropShape = tuple[int, int, int]

_CORE_COLUMNS: Mapping[str, pa.DataType] = {
    "patient": pa.string(),
    "series": pa.string(),
    "node": pa.string(),
    "station": pa.string(),
    "metastasis": pa.int8(),
    "short_axis_mm": pa.float32(),
    "position_mm": pa.list_(pa.float32(), 3),
    "outside": pa.float32(),
    "fold": pa.int8(),
}
CORE_LABELS = ("station", "metastasis")
"""The label columns that every store has, filled or not."""


def store_schema(crop_shape: CropShape, labels: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of a part file: the crop, the core columns, then the further label columns `labels`."""
    if clash := sorted({CROP, ROW_INDEX, *_CORE_COLUMNS} & set(labels)):
        raise ValueError(f"label columns must not be core columns of the store, found {', '.join(clash)}")
    crop = pa.fixed_shape_tensor(pa.int16(), list(crop_shape))
    return pa.schema([(CROP, crop), *_CORE_COLUMNS.items(), *labels.items()])


def crop_column(crops: npt.NDArray[np.int16]) -> pa.FixedShapeTensorArray:
    """Crops int16 [rows, z, y, x], at least one, as the store's `crop` column (no copy where they are contiguous)."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(crops))


def crops_of(batch: pa.RecordBatch | pa.Table) -> npt.NDArray[np.int16]:
    """The crops of a batch as int16 [rows, z, y, x], read-only; no copy unless the column lies in several chunks.

    Takes what `Store.batches` yields as well as a block of Ray Data in batch format `pyarrow`: both types of tensor column
    know their shape and keep a list array beneath.
    """
    column = batch.column(CROP)
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # combine_chunks of extension types returns one chunk still wrapped
        column = column.chunk(0)
    values = column.storage.flatten().to_numpy(zero_copy_only=True)
    crops: npt.NDArray[np.int16] = values.reshape(len(column), *column.type.shape)
    return crops

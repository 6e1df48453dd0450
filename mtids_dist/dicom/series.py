"""A usable CT series: where its voxels lie in the patient, and its slices in Hounsfield units on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtids_dist.dicom.pixels import PixelDecodeError, decode_hu

Vector = tuple[float, float, float]

INDEX_TOLERANCE = 1e-6
"""Voxels by which a point may lie beyond the outermost voxel centres by rounding alone."""


@dataclass(frozen=True)
class Series:
    """Evenly spaced parallel slices. Small and picklable: it holds paths and geometry, no pixels.

    Voxel (slice k, row j, column i) has its centre at
    `origin_mm + i * spacing_mm[0] * axes[0] + j * spacing_mm[1] * axes[1] + k * spacing_mm[2] * axes[2]`
    in patient coordinates (LPS, mm; PS3.3 C.7.6.2.1.1).
    """

    uid: str
    patient_id: str
    paths: tuple[Path, ...]
    """One file a slice, sorted along `axes[2]`."""
    origin_mm: Vector
    """Centre of voxel (0, 0, 0)."""
    axes: tuple[Vector, Vector, Vector]
    """Unit vectors in which the column, the row and the slice index grow; right-handed."""
    spacing_mm: Vector
    """Step of the column, the row and the slice index: in the order of `axes`."""
    shape: tuple[int, int, int]
    """(slices, rows, columns): the order of the arrays, so the reverse of `axes`."""

    def index_of(self, position_mm: Sequence[float]) -> npt.NDArray[np.float64]:
        """Continuous voxel index [slice, row, column] of a point in LPS mm."""
        offset_mm = np.asarray(position_mm, dtype=np.float64) - self.origin_mm
        index: npt.NDArray[np.float64] = (np.asarray(self.axes) @ offset_mm / self.spacing_mm)[::-1]
        return index

    def contains(self, position_mm: Sequence[float]) -> bool:
        """Whether a point (LPS mm) lies in the hull of the voxel centres, within which nothing is extrapolated."""
        index = self.index_of(position_mm)
        return bool(np.all(index >= -INDEX_TOLERANCE) and np.all(index <= np.subtract(self.shape, 1) + INDEX_TOLERANCE))

    def read_hu(self, first: int, stop: int) -> npt.NDArray[np.float32]:
        """Hounsfield units float32[stop - first, rows, columns] of slices first, ..., stop - 1; no other file is opened.

        Raises `PixelDecodeError` for the first slice that can't be decoded, `ValueError` for a range outside the series.
        """
        slices, rows, columns = self.shape
        if not 0 <= first <= stop <= slices:
            raise ValueError(f"first and stop must satisfy 0 <= first <= stop <= {slices}, found {first}, {stop}")
        volume = np.empty((stop - first, rows, columns), dtype=np.float32)
        for k in range(first, stop):
            volume[k - first] = self._decode(k)
        return volume

    def _decode(self, k: int) -> npt.NDArray[np.float32]:
        slices, rows, columns = self.shape
        try:
            return decode_hu(self.paths[k], rows, columns)
        except PixelDecodeError as error:
            raise PixelDecodeError(f"slice {k + 1} of {slices}: {error.what}", error.path) from error

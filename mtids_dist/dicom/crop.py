"""Cubes around a point, resampled onto the patient's own axes; only the slices that the cube touches are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mtids_dist.dicom.series import INDEX_TOLERANCE, Series

OUTSIDE_HU = -1024
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, eq=False)
class Crop:
    """A cube of Hounsfield units and how much of it the scan does not cover."""

    voxels: npt.NDArray[np.int16]
    """int16[size, size, size], axes z, y, x growing to superior, posterior, left (LPS); -1024 outside the volume."""
    outside: float
    """Share of the voxels outside the hull of the series' voxel centres, 0 to 1."""


def crop(series: Series, position_mm: Sequence[float], *, size: int, spacing_mm: float) -> Crop:
    """The cube of `size`^3 voxels of `spacing_mm` centred on `position_mm` (LPS mm), trilinearly interpolated.

    Voxel (z, y, x) lies at `position_mm + (index - (size - 1) / 2) * spacing_mm` along the patient's axes, whatever the
    series' own orientation. "Outside" is everything beyond the outermost voxel centres: nothing is extrapolated, not even
    the half voxel up to a voxel's border. Values are rounded to the nearest integer and clipped to int16.

    Raises `PixelDecodeError` if a slice it needs can't be decoded, `ValueError` for a size or spacing that is not positive.
    """
    if size < 1 or not spacing_mm > 0:
        raise ValueError(f"size and spacing_mm must be positive, found {size}, {spacing_mm}")
    # Index of the series [slice, row, column] = step @ index of the cube [z, y, x] + start
    step = (np.asarray(series.axes) * spacing_mm / np.asarray(series.spacing_mm)[:, None])[::-1, ::-1]
    start = series.index_of(position_mm) - step.sum(axis=1) * (size - 1) / 2
    first, stop = _slices_touched(step[0], start[0], size, series.shape[0])
    inside = _inside(step, start, size, series.shape)
    voxels = np.full((size, size, size), OUTSIDE_HU, dtype=np.int16)
    if inside.any():
        start[0] -= first
        hu = ndimage.affine_transform(
            series.read_hu(first, stop), step, start, output_shape=voxels.shape, output=np.float32, order=1, mode="nearest"
        )
        voxels[inside] = np.rint(hu[inside]).clip(INT16.min, INT16.max)
    return Crop(voxels, outside=float((~inside).mean()))


def _slices_touched(step: npt.NDArray[np.float64], start: float, size: int, slices: int) -> tuple[int, int]:
    """Range (first, stop) of slices between which the cube's voxels are interpolated; never empty."""
    reach = step * (size - 1)
    lowest, highest = start + reach.clip(max=0).sum(), start + reach.clip(min=0).sum()
    last = min(max(ceil(highest - INDEX_TOLERANCE), 0), slices - 1)
    return min(max(floor(lowest + INDEX_TOLERANCE), 0), last), last + 1


def _inside(
    step: npt.NDArray[np.float64], start: npt.NDArray[np.float64], size: int, shape: tuple[int, int, int]
) -> npt.NDArray[np.bool_]:
    """bool[size, size, size]: which of the cube's voxels lie in the hull of the series' voxel centres."""
    z, y, x = np.ogrid[:size, :size, :size]
    inside = np.ones((size, size, size), dtype=np.bool_)
    for (along_z, along_y, along_x), offset, count in zip(step, start, shape, strict=True):
        index = offset + along_z * z + along_y * y + along_x * x
        inside &= (index >= -INDEX_TOLERANCE) & (index <= count - 1 + INDEX_TOLERANCE)
    return inside

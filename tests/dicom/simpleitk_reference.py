"""The independent opinion on a crop: SimpleITK reads the series and resamples it, float and linear, onto the crop's grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK

from mtids_dist.dicom import OUTSIDE_HU, Crop

EDGE = 1e-4
"""Voxels next to the border of the hull of voxel centres that may be counted either way."""


def read_image(folder: Path, series_uid: str) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series_uid))
    return SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat64)


def assert_same_as_simpleitk(
    crop: Crop, image: SimpleITK.Image, position_mm: Sequence[float], size: int, spacing_mm: float
) -> None:
    """Within 1 HU at every voxel inside the hull of voxel centres, -1024 outside, and the share outside is told."""
    corner = np.asarray(position_mm) - (size - 1) / 2 * spacing_mm
    resampled = SimpleITK.Resample(
        image,
        [size] * 3,
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        corner,
        [spacing_mm] * 3,
        np.eye(3).ravel(),
        0.0,
        SimpleITK.sitkFloat64,
    )
    z, y, x = np.meshgrid(*[np.arange(size)] * 3, indexing="ij")
    points = corner + np.stack([x, y, z], axis=-1) * spacing_mm
    direction = np.array(image.GetDirection()).reshape(3, 3)
    index = (points - image.GetOrigin()) @ np.linalg.inv(direction).T / image.GetSpacing()
    beyond = np.maximum(-index, index - (np.array(image.GetSize()) - 1)).max(axis=-1)
    inside, outside = beyond < -EDGE, beyond > EDGE
    difference = np.abs(SimpleITK.GetArrayFromImage(resampled) - crop.voxels)[inside]
    assert difference.size == 0 or difference.max() <= 1.0
    assert (crop.voxels[outside] == OUTSIDE_HU).all()
    assert outside.mean() - 1e-9 <= crop.outside <= 1 - inside.mean() + 1e-9
    assert crop.voxels.dtype == np.int16
    assert crop.voxels.shape == (size,) * 3

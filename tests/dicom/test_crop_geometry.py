"""Crops of series written from a formula: any orientation, partly outside, and only the slices touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from analytic_series import AXIAL, CORONAL, FEET_FIRST_PRONE, SAGITTAL, SeriesSpec, plane, rotated, write_series
from simpleitk_reference import assert_same_as_simpleitk, read_image

from mtids_dist.dicom import OUTSIDE_HU, PixelDecodeError, Series, crop, read_series

ORIENTATIONS = {
    "axial": AXIAL,
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "feet_first_prone": FEET_FIRST_PRONE,
    "turned_about_z": rotated((0, 0, 30)),
    "oblique": rotated((20, -35, 50)),
}


def only_series(folder: Path) -> Series:
    (series,) = read_series(folder)
    return series


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_equals_simpleitk_in_any_orientation(name: str, tmp_path: Path) -> None:
    spec = SeriesSpec(orientation=ORIENTATIONS[name])
    write_series(tmp_path, spec)
    series, image = only_series(tmp_path), read_image(tmp_path, spec.uid)
    far_corner = spec.points_mm()[-1, -1, -1]
    for position_mm in (spec.centre_mm, np.add(spec.centre_mm, (7.3, -6.1, 9.7)), spec.origin_mm, far_corner):
        for size, spacing_mm in ((12, 1.0), (25, 1.7), (8, 0.33)):
            assert_same_as_simpleitk(
                crop(series, position_mm, size=size, spacing_mm=spacing_mm), image, position_mm, size, spacing_mm
            )


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_axes_of_a_crop_are_the_patients(name: str, tmp_path: Path) -> None:
    """Of a linear field every voxel is known: z to superior, y to posterior, x to left, whatever the scan's orientation."""
    spec = SeriesSpec(orientation=ORIENTATIONS[name], hu=plane, origin_mm=(-20.0, -15.0, 10.0))
    write_series(tmp_path, spec)
    size, spacing_mm = 10, 1.2
    result = crop(only_series(tmp_path), spec.centre_mm, size=size, spacing_mm=spacing_mm)
    z, y, x = np.meshgrid(*[(np.arange(size) - (size - 1) / 2) * spacing_mm] * 3, indexing="ij")
    expected = plane(spec.centre_mm + np.stack([x, y, z], axis=-1))
    assert result.outside == 0
    assert np.abs(result.voxels - expected).max() <= 1.0


def test_slices_are_sorted_along_the_normal_and_voxels_lie_where_the_series_says(tmp_path: Path) -> None:
    spec = SeriesSpec(orientation=ORIENTATIONS["oblique"])
    written = write_series(tmp_path, spec)
    series = only_series(tmp_path)
    assert series.paths == tuple(written)
    assert series.shape == spec.shape
    np.testing.assert_allclose(series.spacing_mm, spec.spacing_mm[::-1], rtol=1e-6)
    np.testing.assert_array_equal(series.read_hu(3, 7), spec.volume_hu()[3:7])
    np.testing.assert_allclose(series.index_of(spec.points_mm()[4, 20, 10]), (4, 20, 10), atol=1e-5)


def test_outermost_voxel_centres_are_inside_and_a_hair_more_is_outside(tmp_path: Path) -> None:
    spec = SeriesSpec()
    write_series(tmp_path, spec)
    series = only_series(tmp_path)
    corner_mm = spec.points_mm()[-1, -1, -1]
    at_corner = crop(series, corner_mm, size=1, spacing_mm=1.0)
    assert (at_corner.outside, at_corner.voxels.item()) == (0.0, spec.volume_hu()[-1, -1, -1])
    assert series.contains(corner_mm)
    by_rounding = crop(series, corner_mm + 1e-7, size=1, spacing_mm=1.0)
    assert (by_rounding.outside, by_rounding.voxels.item()) == (0.0, at_corner.voxels.item())
    for step_mm in ((0.01, 0, 0), (0, 0.01, 0), (0, 0, 0.01)):
        assert not series.contains(corner_mm + step_mm)
        beyond = crop(series, corner_mm + step_mm, size=1, spacing_mm=1.0)
        assert (beyond.outside, beyond.voxels.item()) == (1.0, OUTSIDE_HU)


def test_only_touched_slices_are_decoded(tmp_path: Path) -> None:
    spec = SeriesSpec()  # slices 2.5 mm apart
    written = write_series(tmp_path, spec)
    series = only_series(tmp_path)
    position_mm = spec.points_mm()[5, 15, 18] + (0, 0, 1.25)
    whole = crop(series, position_mm, size=4, spacing_mm=1.0)  # z reaches 1.5 mm to both sides: slices 4 to 7
    for k in (0, 1, 2, 3, 8, 9, 10, 11):
        written[k].unlink()
    np.testing.assert_array_equal(crop(series, position_mm, size=4, spacing_mm=1.0).voxels, whole.voxels)
    written[4].unlink()
    with pytest.raises(PixelDecodeError, match=r"^slice 5 of 12: pixel data can't be decoded \(FileNotFoundError\)$"):
        crop(series, position_mm, size=4, spacing_mm=1.0)
    exactly_on_a_slice = crop(series, spec.points_mm()[6, 15, 18], size=1, spacing_mm=1.0)
    assert exactly_on_a_slice.voxels.item() == spec.volume_hu()[6, 15, 18]


def test_values_beyond_int16_are_clipped(tmp_path: Path) -> None:
    spec = SeriesSpec(hu=lambda points: np.full(points.shape[:-1], 1000.0), tags={"RescaleSlope": 30})
    write_series(tmp_path, spec)
    assert crop(only_series(tmp_path), spec.centre_mm, size=2, spacing_mm=1.0).voxels.max() == 32767


@pytest.mark.parametrize(("size", "spacing_mm"), [(0, 1.0), (4, 0.0), (4, float("nan"))])
def test_impossible_cubes_are_refused(size: int, spacing_mm: float, tmp_path: Path) -> None:
    spec = SeriesSpec(shape=(3, 4, 4))
    write_series(tmp_path, spec)
    with pytest.raises(ValueError, match="size and spacing_mm must be positive"):
        crop(only_series(tmp_path), spec.centre_mm, size=size, spacing_mm=spacing_mm)

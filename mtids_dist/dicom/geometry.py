"""Do the slices of one series form a volume? Orientation, positions and spacing are judged by their effect in mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtids_dist.dicom.header import SliceHeader
from mtids_dist.dicom.series import Series
from mtids_dist.dicom.skips import SkipError, SkipReason

Array = npt.NDArray[np.float64]

MIN_SLICES = 2
"""Two slices span a volume that can be interpolated; a single one does not."""
TILT_TAG_TOLERANCE_DEG = 0.1
DRIFT_TOLERANCE_MM = 0.25
"""Sideways shift between the slices of a series: what rounded cosines over a long scan make, far below a real tilt."""
SAME_POSITION_MM = 0.01
SPACING_TOLERANCE_MM = 0.1
SPACING_TOLERANCE_SHARE = 0.02
"""A slice may be off the even grid by the larger of the two: positions rounded to 0.1 mm pass, a missing slice does not."""


def make_series(slices: Sequence[SliceHeader]) -> Series:
    """The series of these slices (of one SeriesInstanceUID, in any order); raises `SkipError` if they form no volume."""
    _require_alike(slices)
    axes = _axes(slices[0].orientation)
    positions = np.array([s.position_mm for s in slices])
    along_mm = positions @ axes[2]
    order = np.argsort(along_mm, kind="stable")
    positions, along_mm = positions[order], along_mm[order]
    if (gaps_mm := np.diff(along_mm)).min() < SAME_POSITION_MM:
        shared = int((gaps_mm < SAME_POSITION_MM).sum())
        raise SkipError(SkipReason.DUPLICATE_POSITION, f"{shared} of {len(slices)} slices lie where another one lies")
    _require_straight(positions, along_mm, axes)
    _require_even(along_mm)
    first, row_step_mm, column_step_mm = slices[order[0]], *slices[0].pixel_spacing_mm
    slice_step_mm = float(along_mm[-1] - along_mm[0]) / (len(slices) - 1)
    column_axis, row_axis, slice_axis = ((float(x), float(y), float(z)) for x, y, z in axes)
    return Series(
        uid=first.series_uid,
        patient_id=first.patient_id,
        paths=tuple(slices[i].path for i in order),
        origin_mm=first.position_mm,
        axes=(column_axis, row_axis, slice_axis),
        spacing_mm=(column_step_mm, row_step_mm, slice_step_mm),
        shape=(len(slices), first.rows, first.columns),
    )


def _require_alike(slices: Sequence[SliceHeader]) -> None:
    if patients := len({s.patient_id for s in slices}) - 1:
        raise SkipError(SkipReason.MIXED_PATIENTS, f"{patients + 1} patients in one series")
    if len(slices) < MIN_SLICES:
        raise SkipError(SkipReason.TOO_FEW_SLICES, f"{len(slices)} slices, at least {MIN_SLICES} needed")
    if sizes := len({(s.rows, s.columns) for s in slices}) - 1:
        raise SkipError(SkipReason.INCONSISTENT_GEOMETRY, f"{sizes + 1} sizes of slices")
    for what, values in (
        ("PixelSpacing", [s.pixel_spacing_mm for s in slices]),
        ("orientation", [s.orientation for s in slices]),
    ):
        spread = float(np.ptp(np.array(values), axis=0).max())
        if spread > 1e-3:
            raise SkipError(SkipReason.INCONSISTENT_GEOMETRY, f"{what} differs by {spread:.4g} between slices")
    tilt_deg = max((s.tilt_deg for s in slices), key=abs)
    if abs(tilt_deg) > TILT_TAG_TOLERANCE_DEG:
        raise SkipError(SkipReason.GANTRY_TILT, f"GantryDetectorTilt {tilt_deg:g} degrees")


def _axes(orientation: tuple[float, ...]) -> Array:
    """Orthonormal rows: column, row and slice direction, from the six cosines (Gram-Schmidt takes their rounding out)."""
    column = np.array(orientation[:3]) / np.linalg.norm(orientation[:3])
    row = np.array(orientation[3:]) - np.dot(orientation[3:], column) * column
    row /= np.linalg.norm(row)
    return np.stack([column, row, np.cross(column, row)])


def _require_straight(positions: Array, along_mm: Array, axes: Array) -> None:
    """A tilted gantry moves the slices sideways in proportion to the distance; anything else sideways is no grid at all."""
    distance_mm = along_mm - along_mm[0]
    sideways_mm = (positions - positions[0]) @ axes[:2].T
    if (drift_mm := float(np.linalg.norm(sideways_mm, axis=1).max())) <= DRIFT_TOLERANCE_MM:
        return
    slope = distance_mm @ sideways_mm / (distance_mm @ distance_mm)
    off_line_mm = float(np.linalg.norm(sideways_mm - np.outer(distance_mm, slope), axis=1).max())
    if off_line_mm > DRIFT_TOLERANCE_MM:
        raise SkipError(SkipReason.INCONSISTENT_GEOMETRY, f"slices lie up to {drift_mm:.2f} mm sideways of each other")
    tilt_deg = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    raise SkipError(SkipReason.GANTRY_TILT, f"slices drift {drift_mm:.2f} mm sideways, {tilt_deg:.1f} degrees off their normal")


def _require_even(along_mm: Array) -> None:
    even_mm = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    tolerance_mm = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE_SHARE * float(np.median(np.diff(along_mm))))
    if float(np.abs(along_mm - even_mm).max()) > tolerance_mm:
        gaps_mm = np.diff(along_mm)
        raise SkipError(SkipReason.UNEVEN_SPACING, f"gaps of {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm")

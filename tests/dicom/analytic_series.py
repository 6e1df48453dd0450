"""Writes CT series from a formula, in any orientation and encoding, so that tests know every voxel beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

Array = npt.NDArray[np.float64]
Field = Callable[[Array], Array]
"""HU at points [..., 3] in LPS mm."""

UID_ROOT = "1.2.826.0.1.3680043.8.498."
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
FEET_FIRST_PRONE = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def waves(points_mm: Array) -> Array:
    """Smooth in all directions and different along each."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    return 300 * np.sin(x / 9 + 0.3) + 250 * np.cos(y / 13) + 200 * np.sin(z / 7 - x / 31) - 200


def plane(points_mm: Array) -> Array:
    """Linear: trilinear interpolation must give it back up to rounding."""
    return points_mm @ np.array([3.0, -2.0, 5.0]) + 40


def rotated(degrees: tuple[float, float, float]) -> tuple[Any, Any]:
    """Orientation of an axial series turned about x, y and z in turn."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [i for i in range(3) if i != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return tuple(turn[:, 0]), tuple(turn[:, 1])


@dataclass(frozen=True)
class SeriesSpec:
    """One series to write; `shape` is (slices, rows, columns), `spacing_mm` between (slices, rows, columns)."""

    hu: Field = waves
    orientation: tuple[Any, Any] = AXIAL
    origin_mm: tuple[float, float, float] = (-20.0, -15.0, 100.0)
    spacing_mm: tuple[float, float, float] = (2.5, 0.9, 1.1)
    shape: tuple[int, int, int] = (12, 30, 36)
    uid: str = UID_ROOT + "1"
    patient_id: str = "P1"
    intercept: int = -1024
    signed: bool = False
    syntax: str = ExplicitVRLittleEndian
    compress: bool = False
    seed: int = 0
    tags: dict[str, Any] = field(default_factory=dict)
    """Further elements; None removes one."""

    def but(self, **changes: Any) -> SeriesSpec:
        return replace(self, **changes)

    @property
    def axes(self) -> Array:
        column, row = (np.array(v) for v in self.orientation)
        return np.stack([column, row, np.cross(column, row)])

    def points_mm(self, only: int | None = None) -> Array:
        """Centres of all voxels, [slices, rows, columns, 3], or of those of one slice."""
        slices = np.arange(self.shape[0]) if only is None else np.array([only])
        k, j, i = np.meshgrid(slices, *(np.arange(n) for n in self.shape[1:]), indexing="ij")
        slice_mm, row_mm, column_mm = self.spacing_mm
        return self.origin_mm + np.stack([i * column_mm, j * row_mm, k * slice_mm], axis=-1) @ self.axes

    def volume_hu(self) -> Array:
        return np.rint(self.hu(self.points_mm()))

    @property
    def centre_mm(self) -> Array:
        return self.points_mm().reshape(-1, 3).mean(axis=0)


def write_series(folder: Path, spec: SeriesSpec) -> list[Path]:
    """The files of the series in slice order; their names are shuffled, so that the order of names tells nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(spec.seed).permutation(spec.shape[0])
    return [write_slice(folder / f"{spec.uid[-1]}-{names[k]:03d}.dcm", spec, k) for k in range(spec.shape[0])]


def write_slice(path: Path, spec: SeriesSpec, k: int) -> Path:
    dataset = _dataset(path, spec, k)
    if spec.compress:
        dataset.compress(spec.syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _dataset(path: Path, spec: SeriesSpec, k: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if spec.compress else spec.syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{spec.uid}.{k}"
    syntax = UID(meta.TransferSyntaxUID)
    encoding = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, **encoding)
    points_mm = spec.points_mm(only=k)[0]
    stored = np.rint(spec.hu(points_mm)) - spec.intercept
    kind = ("<" if spec.syntax != ExplicitVRBigEndian else ">") + ("i2" if spec.signed else "u2")
    assert stored.min() >= (-32768 if spec.signed else 0), "the formula does not fit these pixels"
    elements = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{spec.uid}.{k}",
        "SeriesInstanceUID": spec.uid,
        "PatientID": spec.patient_id,
        "PatientName": "",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [f"{v:.10g}" for v in points_mm[0, 0]],
        "ImageOrientationPatient": [f"{v:.12f}"[:16] for v in np.ravel(spec.orientation)],
        "PixelSpacing": list(spec.spacing_mm[1:]),
        "Rows": spec.shape[1],
        "Columns": spec.shape[2],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(spec.signed),
        "RescaleSlope": 1,
        "RescaleIntercept": spec.intercept,
        **spec.tags,
    }
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = stored.astype(kind).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset

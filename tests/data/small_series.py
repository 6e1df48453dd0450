"""Small CT series and node tables, written with pydicom."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

COLUMNS = ["series_instance_uid", "patient_id", "node_id", "x_mm", "y_mm", "z_mm", "short_axis_mm", "station", "metastasis"]


def series_uid(name: str) -> str:
    return generate_uid(entropy_srcs=[name])


def write_series(folder: Path, name: str, *, patient: str, slices: int = 20, size: int = 40, suffix: str = ".dcm") -> str:
    """A series of 1 x 1 x 2 mm voxels with its first voxel at the origin; HU = x + 2 y + 3 z (mm), exact under interpolation."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = series_uid(name)
    y, x = np.mgrid[:size, :size]
    for k in range(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, str(k)])
        data.SeriesInstanceUID, data.PatientID, data.PatientName, data.Modality = uid, patient, f"Doe^{patient}", "CT"
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows = data.Columns = size
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (x + 2 * y + 3 * 2 * k + 1024).astype(np.uint16).tobytes()
        data.save_as(folder / f"{(k * 7) % slices:03d}{suffix}", enforce_file_format=True)
    return uid


def node_row(uid: str, patient: str, node: int, **changed: Any) -> dict[str, Any]:
    row = {"series_instance_uid": uid, "patient_id": patient, "node_id": node, "x_mm": 20, "y_mm": 20, "z_mm": 20}
    return row | {"short_axis_mm": 8.5, "station": "4R", "metastasis": node % 2} | changed


def write_nodes(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_cohort(folder: Path, patients: int = 12, nodes: int = 4) -> tuple[Path, Path]:
    """(DICOM folder, node table) of one series a patient, nodes at different places."""
    rows = []
    for p in range(patients):
        name = f"SECRET{p:02d}"
        uid = write_series(folder / "dicom" / f"d{p % 3}" / name, name, patient=name, suffix=("", ".dcm")[p % 2])
        for n in range(nodes):
            place = {"x_mm": 15 + 3 * n, "y_mm": 18 + p % 5, "z_mm": 14 + 3.5 * n}
            rows.append(node_row(uid, name, n, **place, station=("7", "4R", "", "2L")[(p + n) % 4]))
    return folder / "dicom", write_nodes(folder / "nodes.csv", rows)

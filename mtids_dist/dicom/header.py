"""Reading the header of one file: a `SliceHeader`, or the reason why the file is no CT slice. Pixels are not read."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from mtids_dist.dicom.pixel_length import PixelElement
from mtids_dist.dicom.pixels import can_decode
from mtids_dist.dicom.quiet import quiet_pydicom
from mtids_dist.dicom.skips import SkipError, Skipped, SkipReason

Progress = Callable[[int], None]
"""Called with the number of files done so far."""

HEADER_TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        "ImageType",
        "SOPClassUID",
        "SOPInstanceUID",
        "Modality",
        "PatientID",
        "GantryDetectorTilt",
        "SeriesInstanceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "SamplesPerPixel",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "PixelSpacing",
        "BitsAllocated",
        "RescaleIntercept",
        "RescaleSlope",
        "RescaleType",
    )
]
ENHANCED_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
LOCALIZER_TYPES = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
HOUNSFIELD_TYPES = {"", "HU", "US"}
"""Values of RescaleType that a plain CT may carry; US (unspecified) is what older scanners write."""


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What a CT slice's header says; small and picklable, so that headers can be read in parallel."""

    path: Path
    sop_uid: str
    series_uid: str
    patient_id: str
    position_mm: tuple[float, float, float]
    """Centre of the first voxel, LPS."""
    orientation: tuple[float, ...]
    """Direction along a row (in which the column index grows), then down a column: 6 cosines, LPS."""
    pixel_spacing_mm: tuple[float, float]
    """Between rows, then between columns, as in PixelSpacing."""
    rows: int
    columns: int
    tilt_deg: float
    """GantryDetectorTilt; 0 where the tag is absent."""


def scan_headers(paths: Iterable[Path], progress: Progress | None = None) -> list[SliceHeader | Skipped]:
    """`read_header` of each path, in order."""
    headers = []
    for done, path in enumerate(paths, start=1):
        headers.append(read_header(path))
        if progress is not None:
            progress(done)
    return headers


def read_header(path: Path) -> SliceHeader | Skipped:
    """The header of one file, whatever it is; never raises because of what the file holds."""
    series_uid = ""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            raise SkipError(SkipReason.NOT_DICOM, "not a regular file")
        with quiet_pydicom(), path.open("rb") as stream:
            pixels = PixelElement(stream)
            dataset = read_partial(stream, stop_when=pixels.met, specific_tags=HEADER_TAGS)
            series_uid = _text(dataset, "SeriesInstanceUID")
            _require_ct_slice(dataset, pixels)
            header = _slice_header(path, dataset)
            _require_decodable(dataset, header, pixels, status.st_size)
            return header
    except SkipError as skip:
        return Skipped(path, series_uid, skip.reason, skip.detail)
    except InvalidDicomError:
        return Skipped(path, series_uid, SkipReason.NOT_DICOM, "no DICM prefix")
    except Exception as error:  # damaged headers make pydicom raise anything; its text may quote the patient
        return Skipped(path, series_uid, SkipReason.UNREADABLE, type(error).__name__)


def _require_ct_slice(dataset: Any, pixels: PixelElement) -> None:
    media_class = dataset.file_meta.get("MediaStorageSOPClassUID", "")
    if media_class == MediaStorageDirectoryStorage:
        raise SkipError(SkipReason.DICOMDIR)
    sop_class = UID(_text(dataset, "SOPClassUID") or media_class)
    if sop_class in ENHANCED_CT:
        raise SkipError(SkipReason.MULTI_FRAME, sop_class.name)
    if _text(dataset, "Modality") != "CT" or sop_class not in (CTImageStorage, ""):
        other = sop_class != CTImageStorage and sop_class.type == "SOP Class"
        raise SkipError(SkipReason.NOT_CT, sop_class.name if other else "Modality is not CT")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise SkipError(SkipReason.MULTI_FRAME, f"{frames} frames")
    image_type = dataset.get("ImageType") or ()
    if LOCALIZER_TYPES & {str(value).upper() for value in ([image_type] if isinstance(image_type, str) else image_type)}:
        raise SkipError(SkipReason.LOCALIZER)
    if pixels.length is None:
        raise SkipError(SkipReason.NO_PIXELS)


def _slice_header(path: Path, dataset: Any) -> SliceHeader:
    if not (series_uid := _text(dataset, "SeriesInstanceUID")):
        raise SkipError(SkipReason.MISSING_TAG, "SeriesInstanceUID absent")
    x_mm, y_mm, z_mm = _numbers(dataset, "ImagePositionPatient", 3)
    row_step_mm, column_step_mm = _numbers(dataset, "PixelSpacing", 2)
    rows, columns = (int(_numbers(dataset, keyword, 1)[0]) for keyword in ("Rows", "Columns"))
    if min(row_step_mm, column_step_mm, rows, columns) <= 0:
        raise SkipError(SkipReason.MISSING_TAG, "PixelSpacing, Rows or Columns not positive")
    return SliceHeader(
        path=path,
        sop_uid=_text(dataset, "SOPInstanceUID"),
        series_uid=series_uid,
        patient_id=_text(dataset, "PatientID"),
        position_mm=(x_mm, y_mm, z_mm),
        orientation=_orientation(dataset),
        pixel_spacing_mm=(row_step_mm, column_step_mm),
        rows=rows,
        columns=columns,
        tilt_deg=_numbers(dataset, "GantryDetectorTilt", 1)[0] if dataset.get("GantryDetectorTilt") is not None else 0.0,
    )


def _orientation(dataset: Any) -> tuple[float, ...]:
    cosines = _numbers(dataset, "ImageOrientationPatient", 6)
    along_row, down_column = cosines[:3], cosines[3:]
    lengths = (sum(c * c for c in along_row), sum(c * c for c in down_column))
    across = sum(a * b for a, b in zip(along_row, down_column, strict=True))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(across)) > 5e-3:  # cosines of three decimals are still met
        raise SkipError(SkipReason.MISSING_TAG, "ImageOrientationPatient not two perpendicular unit vectors")
    return cosines


def _require_decodable(dataset: Any, header: SliceHeader, pixels: PixelElement, file_bytes: int) -> None:
    if (samples := dataset.get("SamplesPerPixel")) not in (None, 1):
        raise SkipError(SkipReason.NOT_HOUNSFIELD, f"{samples} samples a pixel")
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        _numbers(dataset, keyword, 1)
    if _text(dataset, "RescaleType").upper() not in HOUNSFIELD_TYPES:
        raise SkipError(SkipReason.NOT_HOUNSFIELD, "RescaleType is not HU")
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ""))
    if not can_decode(syntax):
        known = syntax.name if syntax.is_transfer_syntax else "none or a private one"
        raise SkipError(SkipReason.UNSUPPORTED_SYNTAX, f"transfer syntax: {known}")
    expected_bytes = prod((header.rows, header.columns, int(_numbers(dataset, "BitsAllocated", 1)[0]))) // 8
    deflated = syntax == DeflatedExplicitVRLittleEndian
    if missing := pixels.shortfall(expected_bytes, file_bytes, deflated=deflated):
        raise SkipError(SkipReason.TRUNCATED, f"{missing} bytes of pixel data missing")


def _text(dataset: Any, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...]:
    try:
        value = dataset.get(keyword)  # pydicom converts the text here
        numbers = tuple(float(v) for v in ([value] if count == 1 else value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(isfinite(v) for v in numbers):
        raise SkipError(SkipReason.MISSING_TAG, f"{keyword} absent or malformed")
    return numbers

"""Why a file of a DICOM folder is not part of a usable series: one name a reason, none of them silent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class SkipReason(str, Enum):
    """Stable names of the reasons; they are written to `rejected.parquet` as they stand here."""

    # One file.
    NOT_DICOM = "not_dicom"
    UNREADABLE = "unreadable"
    DICOMDIR = "dicomdir"
    NOT_CT = "not_ct"
    MULTI_FRAME = "multi_frame"
    LOCALIZER = "localizer"
    NO_PIXELS = "no_pixels"
    MISSING_TAG = "missing_tag"
    NOT_HOUNSFIELD = "not_hounsfield"
    UNSUPPORTED_SYNTAX = "unsupported_syntax"
    TRUNCATED = "truncated"
    DUPLICATE_FILE = "duplicate_file"
    # A whole series: each of its files is skipped with it.
    MIXED_PATIENTS = "mixed_patients"
    TOO_FEW_SLICES = "too_few_slices"
    INCONSISTENT_GEOMETRY = "inconsistent_geometry"
    GANTRY_TILT = "gantry_tilt"
    DUPLICATE_POSITION = "duplicate_position"
    UNEVEN_SPACING = "uneven_spacing"


class SkipError(Exception):
    """Raised inside this room where a check fails; whoever walks the files turns it into `Skipped`."""

    def __init__(self, reason: SkipReason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Skipped:
    """One file that is not used. `detail` holds names of tags and numbers only, never a value that could name a patient."""

    path: Path
    series_uid: str
    """Empty where the file tells none."""
    reason: SkipReason
    detail: str = ""

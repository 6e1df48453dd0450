"""Decoding one slice to Hounsfield units."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels import get_decoder, pixel_array

from mtids_dist.dicom.quiet import quiet_pydicom
from mtids_dist.errors import MTIDSError

PIXEL_KEYWORDS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
]


class PixelDecodeError(MTIDSError):
    """A slice whose header was fine holds pixel data that can't be decoded. The message names no patient and no file."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(what, path)
        self.what = what
        self.path = path

    def __str__(self) -> str:
        return self.what


@cache
def can_decode(transfer_syntax: str) -> bool:
    """Whether an installed decoder reads this transfer syntax."""
    try:
        return bool(get_decoder(transfer_syntax).is_available)
    except NotImplementedError:
        return False


def decode_hu(path: Path, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Hounsfield units float32[rows, columns] of one slice: stored value * RescaleSlope + RescaleIntercept (PS3.3 C.11.1).

    Raises `PixelDecodeError` if the pixel data is missing, short, of another size or refused by the decoder.
    """
    try:
        with quiet_pydicom():
            dataset = dcmread(path, specific_tags=PIXEL_KEYWORDS)
            stored = pixel_array(dataset)
            slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    except Exception as error:  # decoders raise whatever they like on damaged bytes; the text may quote the file
        raise PixelDecodeError(f"pixel data can't be decoded ({type(error).__name__})", path) from error
    if stored.shape != (rows, columns):
        raise PixelDecodeError(f"pixel data decodes to shape {stored.shape}, the header says {(rows, columns)}", path)
    hu: npt.NDArray[np.float32] = stored.astype(np.float32)
    hu *= np.float32(slope)
    hu += np.float32(intercept)
    return hu

"""A phantom's scan as a DICOM CT series: one file a slice, every header saying that it is synthetic.

Attributes follow the CT Image IOD (DICOM PS3.3 A.3). Dates and times are fixed and UIDs follow from the draw, so that
bytes repeat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from mtids_dist.dicom.phantom_patient import PhantomPatient
from mtids_dist.dicom.phantom_settings import PhantomConfig

SYNTHETIC = "Synthetic phantom: drawn by a computer program, not the scan of a person. Not for clinical use."
_DATE, _TIME = "20000101", "000000"


@dataclass(frozen=True)
class Encoding:
    """How Hounsfield units are stored: stored value = HU - intercept, signed or not, in `bits` bits."""

    signed: bool
    bits: int
    intercept: int


_ENCODINGS = (Encoding(False, 12, -1024), Encoding(True, 16, -1024), Encoding(True, 16, 0))
_NAMES = ("IM-0001-{number:04d}.dcm", "I{number:06d}", "{uid}.dcm", "slice {number}.dcm")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The habits of the archive that a series comes from: encoding, order of the instance numbers, naming of files."""

    encoding: Encoding
    head_first: bool
    downwards: bool
    name: str
    numbers: tuple[int, ...]

    @classmethod
    def draw(cls, patient: PhantomPatient) -> Archive:
        """One patient's habits; file numbers are shuffled, so that names never give the slice order."""
        rng = np.random.default_rng(patient.archive_stream)
        return cls(
            encoding=_ENCODINGS[rng.integers(len(_ENCODINGS))],
            head_first=bool(rng.random() < 0.8),
            downwards=bool(rng.random() < 0.6),
            name=_NAMES[rng.integers(len(_NAMES))],
            numbers=tuple(int(n) for n in rng.permutation(patient.grid.slices) + 1),
        )


def patient_id(config: PhantomConfig, index: int) -> str:
    """The patient's ID and folder name."""
    return f"PHANTOM-{config.seed}-{index:04d}"


def make_uid(config: PhantomConfig, index: int, kind: str) -> UID:
    """A UID under 2.25 (a UUID as a number, ITU-T X.667) from all settings but the cohort's size."""
    return UID(f"2.25.{_number(config, index, kind)}")


def _number(config: PhantomConfig, index: int, kind: str) -> int:
    settings = config.model_dump_json(exclude={"patients"})
    return uuid5(NAMESPACE_OID, f"mtids-dist phantom|{settings}|{index}|{kind}").int


def write_series(folder: Path, config: PhantomConfig, patient: PhantomPatient) -> None:
    """Render `patient` and write its slices into `folder`, which exists."""
    archive = Archive.draw(patient)
    first_instance = _number(config, patient.index, "instances")
    template = _SliceTemplate(_series_header(config, patient, archive), UID(f"2.25.{first_instance}"))
    for position, (z_mm, pixels_hu) in enumerate(_slices(patient)):
        uid = f"2.25.{first_instance + position}"
        instance = patient.grid.slices - position if archive.downwards else position + 1
        stored = (pixels_hu.astype(np.int32) - archive.encoding.intercept).astype("<i2")
        path = folder / archive.name.format(number=archive.numbers[position], uid=uid)
        path.write_bytes(template.fill(uid, instance, z_mm) + _pixel_data(stored))


class _SliceTemplate:
    """A series' header as bytes, encoded once: slices differ in values of one width only (half the time saved)."""

    _INSTANCE, _Z = "2000000000", "-88888888888.888"

    def __init__(self, header: Dataset, uid: UID) -> None:
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = uid
        header.InstanceNumber = self._INSTANCE
        header.ImagePositionPatient = [*header.ImagePositionPatient[:2], self._Z]
        header.SliceLocation = self._Z
        file = BytesIO()
        dcmwrite(file, header, enforce_file_format=True)
        self.uid, self.encoded = uid, file.getvalue()

    def fill(self, uid: str, instance: int, z_mm: float) -> bytes:
        assert len(uid) == len(self.uid)
        filled = self.encoded.replace(self.uid.encode(), uid.encode())
        filled = filled.replace(self._INSTANCE.encode(), f"{instance:<{len(self._INSTANCE)}}".encode())
        return filled.replace(self._Z.encode(), f"{z_mm:<{len(self._Z)}.3f}".encode())


def _pixel_data(stored: npt.NDArray[np.int16]) -> bytes:
    """The element (7FE0,0010) OW in explicit VR little endian, the last of the file (DICOM PS3.5 7.1.2)."""
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, stored.nbytes) + stored.tobytes()


def _slices(patient: PhantomPatient) -> Iterator[tuple[float, npt.NDArray[np.int16]]]:
    heights = iter(patient.grid.axis(2))
    turned = -1 if patient.prone else 1
    for slab in patient.slabs():
        for pixels_hu in slab:
            yield float(next(heights)), pixels_hu[::turned, ::turned]


def _series_header(config: PhantomConfig, patient: PhantomPatient, archive: Archive) -> Dataset:
    """Everything that a series' files share."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = UID(f"2.25.{uuid5(NAMESPACE_OID, 'mtids-dist phantom').int}")
    header.file_meta.ImplementationVersionName = "MTIDS_PHANTOM"
    for part in (_identity(config, patient.index), _acquisition(patient, archive), _pixels(patient, archive.encoding)):
        header.update(part)
    return header


def _identity(config: PhantomConfig, index: int) -> Dataset:
    """Patient, study, series, frame of reference, equipment."""
    part = Dataset()
    part.SpecificCharacterSet = "ISO_IR 192"
    part.SOPClassUID = CTImageStorage
    part.PatientName, part.PatientID = "PHANTOM^SYNTHETIC", patient_id(config, index)
    part.PatientBirthDate = part.PatientSex = ""
    part.PatientComments = SYNTHETIC
    part.QualityControlSubject = "YES"
    part.PatientIdentityRemoved, part.DeidentificationMethod = "YES", "Synthetic: there never was a person"
    part.StudyInstanceUID = make_uid(config, index, "study")
    part.SeriesInstanceUID = make_uid(config, index, "series")
    part.FrameOfReferenceUID = make_uid(config, index, "frame of reference")
    part.StudyDate = part.SeriesDate = part.AcquisitionDate = part.ContentDate = _DATE
    part.StudyTime = part.SeriesTime = part.AcquisitionTime = part.ContentTime = _TIME
    part.StudyID, part.SeriesNumber, part.AcquisitionNumber = "1", 1, 1
    part.AccessionNumber = part.ReferringPhysicianName = part.PositionReferenceIndicator = ""
    part.StudyDescription = part.SeriesDescription = "SYNTHETIC PHANTOM, chest CT"
    part.Manufacturer, part.ManufacturerModelName = "MTIDS phantom", "Synthetic"
    return part


def _acquisition(patient: PhantomPatient, archive: Archive) -> Dataset:
    """CT image and image plane; a prone patient's rows and columns run to right and anterior."""
    part = Dataset()
    grid, way = patient.grid, -1 if patient.prone else 1
    part.Modality, part.ImageType = "CT", ["DERIVED", "SECONDARY", "AXIAL"]
    part.ImageComments = part.DerivationDescription = SYNTHETIC
    part.BodyPartExamined, part.KVP, part.GantryDetectorTilt = "CHEST", "120", "0"
    part.PatientPosition = ("HF" if archive.head_first else "FF") + ("P" if patient.prone else "S")
    part.ImagePositionPatient = [f"{grid.axis(axis)[-1 if patient.prone else 0]:.3f}" for axis in (0, 1, 2)]
    part.ImageOrientationPatient = [str(way), "0", "0", "0", str(way), "0"]
    part.PixelSpacing = [f"{grid.pixel_mm:.4f}"] * 2
    part.SliceThickness = part.SpacingBetweenSlices = f"{grid.slice_mm:.2f}"
    part.BurnedInAnnotation, part.LossyImageCompression = "NO", "00"
    return part


def _pixels(patient: PhantomPatient, encoding: Encoding) -> Dataset:
    part = Dataset()
    part.SamplesPerPixel, part.PhotometricInterpretation = 1, "MONOCHROME2"
    part.Rows = part.Columns = patient.grid.matrix
    part.BitsAllocated, part.BitsStored, part.HighBit = 16, encoding.bits, encoding.bits - 1
    part.PixelRepresentation = int(encoding.signed)
    part.RescaleIntercept, part.RescaleSlope, part.RescaleType = str(encoding.intercept), "1", "HU"
    part.WindowCenter, part.WindowWidth = "40", "400"
    return part

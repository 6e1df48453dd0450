"""One unit of work: cut the crops of one part file, write it, and leave a record that says so."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from mtids_dist.data.manifest import STAGING, PartFile, write_atomically
from mtids_dist.data.prepare_plan import CropJob, Unit
from mtids_dist.data.rejections import NodeReason, Rejection
from mtids_dist.data.schema import CROP, crop_column
from mtids_dist.data.writer import StoreWriter
from mtids_dist.dicom import Crop, PixelDecodeError, Series, crop
from mtids_dist.settings import Settings

MAX_DEATHS = 3
"""So often a worker may die in one series within one run before that series' nodes are given up."""


class UnitRecord(Settings):
    """What became of a unit's jobs; staged beside the parts until the store is finished."""

    id: str
    part: PartFile | None
    """None if every job was rejected"""
    rejected: tuple[Rejection, ...]


def record_path(store: Path, unit: Unit) -> Path:
    """Where the record of a finished unit lies."""
    return store / STAGING / f"{unit.name}.json"


def finished_record(store: Path, unit: Unit) -> UnitRecord | None:
    """The record that an earlier run left of exactly this unit, if its part file is still there whole."""
    try:
        record = UnitRecord.model_validate_json(record_path(store, unit).read_bytes())
    except (OSError, ValidationError):
        return None
    part = record.part
    whole = part is None or ((store / part.name).is_file() and (store / part.name).stat().st_size == part.size)
    return record if record.id == unit.id and whole else None


def process_unit(unit: Unit, writer: StoreWriter, run: str) -> UnitRecord:
    """Cut and write one part; the same unit gives the same bytes. `run` names this run of prepare."""
    crops: dict[int, Crop] = {}
    rejected: dict[int, Rejection] = {}
    deaths = _Deaths(writer.path / STAGING / f"{unit.name}.trying", run)
    for number, places in _by_series(unit):
        if deaths.enter(number) >= MAX_DEATHS:
            detail = f"the worker died {MAX_DEATHS} times while reading this series"
            rejected |= {place: _rejection(unit.jobs[place], NodeReason.WORKER_DIED, detail) for place in places}
            continue
        series = _SliceCache.of(unit.series[number])
        for place in places:
            result = _cut(series, unit.jobs[place], unit)
            if isinstance(result, Crop):
                crops[place] = result
            else:
                rejected[place] = result
    assert len(crops) + len(rejected) == len(unit.jobs), "a node was lost"
    record = UnitRecord(
        id=unit.id,
        part=writer.write_part(unit.fold, unit.number, _table(unit, crops)) if crops else None,
        rejected=tuple(rejected[place] for place in sorted(rejected)),
    )
    write_atomically(record_path(writer.path, unit), record.model_dump_json().encode())
    deaths.clear()
    return record


def _by_series(unit: Unit) -> Iterator[tuple[int, list[int]]]:
    """Each series with the places of its jobs, ordered along its normal, so that few slices are kept at a time."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for place, job in enumerate(unit.jobs):
        places[job.series].append(place)
    for number, of_series in places.items():
        series = unit.series[number]
        yield number, sorted(of_series, key=lambda place: float(series.index_of(unit.jobs[place].position_mm)[0]))


def _cut(series: Series, job: CropJob, unit: Unit) -> Crop | Rejection:
    if not series.contains(job.position_mm):
        return _rejection(job, NodeReason.OUTSIDE_VOLUME, "the position lies outside the scan")
    try:
        cut = crop(series, job.position_mm, size=unit.crop, spacing_mm=unit.spacing_mm)
    except PixelDecodeError as error:
        return _rejection(job, NodeReason.DECODE_FAILED, str(error))
    except MemoryError:
        raise
    except Exception as error:  # one odd file must not take the other nodes with it; the text may quote the file
        return _rejection(job, NodeReason.DECODE_FAILED, type(error).__name__)
    if cut.outside > unit.max_outside:
        return _rejection(job, NodeReason.MOSTLY_OUTSIDE, f"{cut.outside:.0%} of the crop lies outside the scan")
    return cut


def _rejection(job: CropJob, reason: NodeReason, detail: str) -> Rejection:
    return Rejection(kind="node", item=job.node_hash, row=job.row, reason=reason.value, detail=detail)


def _table(unit: Unit, crops: dict[int, Crop]) -> pa.Table:
    places = sorted(crops)
    jobs = [unit.jobs[place] for place in places]
    return pa.table(
        {
            CROP: crop_column(np.stack([crops[place].voxels for place in places])),
            "patient": [job.patient_hash for job in jobs],
            "series": [job.series_hash for job in jobs],
            "node": [job.node_hash for job in jobs],
            "station": pa.array([job.station for job in jobs], pa.string()),
            "metastasis": pa.array([job.metastasis for job in jobs], pa.int8()),
            "short_axis_mm": pa.array([job.short_axis_mm for job in jobs], pa.float32()),
            "position_mm": pa.array([job.position_mm for job in jobs], pa.list_(pa.float32(), 3)),
            "outside": pa.array([crops[place].outside for place in places], pa.float32()),
        }
    )


class _SliceCache(Series):
    """A series that keeps decoded slices while requests move along its normal: neighbouring nodes share most of them."""

    _slices: dict[int, npt.NDArray[np.float32]]

    @classmethod
    def of(cls, series: Series) -> _SliceCache:
        cached = cls(**{field.name: getattr(series, field.name) for field in fields(series)})
        object.__setattr__(cached, "_slices", {})
        return cached

    def read_hu(self, first: int, stop: int) -> npt.NDArray[np.float32]:
        """As `Series.read_hu`; slices before `first` are forgotten."""
        for k in [k for k in self._slices if k < first]:
            del self._slices[k]
        for k in range(first, stop):
            if k not in self._slices:
                self._slices[k] = super().read_hu(k, k + 1)[0]
        return np.stack([self._slices[k] for k in range(first, stop)])


class _Deaths:
    """Counts, on disk, how often a worker went into a series in this run and never came out."""

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        self._deaths = Counter(self._read())

    def _read(self) -> list[int]:
        try:
            noted = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return []
        return [*noted["died_in"], noted["inside"]] if noted["run"] == self._run else []

    def enter(self, series: int) -> int:
        """How often workers died in this series so far; from now on a death counts as one in it."""
        noted = {"run": self._run, "died_in": sorted(self._deaths.elements()), "inside": series}
        write_atomically(self._path, json.dumps(noted).encode())
        return self._deaths[series]

    def clear(self) -> None:
        """The unit is done."""
        self._path.unlink(missing_ok=True)

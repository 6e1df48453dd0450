"""One self-contained page of a run folder."""

from __future__ import annotations

from pathlib import Path

from mtids_dist.report.files import write_whole
from mtids_dist.report.folder import read_run
from mtids_dist.report.run_page import run_page

REPORT = "report.html"


def write_report(folder: Path, store: Path | None = None) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path; the page needs no other file.

    :param store: where the store lies now, if no longer where evaluation.json says.
    :raises InputError: no such folder, nothing of a run in it, or one of its files is broken.
    """
    folder = Path(folder)
    return write_whole(folder / REPORT, run_page(read_run(folder), store).encode())

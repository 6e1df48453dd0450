"""One self-contained page of a folder: a run's, or a search's."""

from __future__ import annotations

from pathlib import Path

from mtids_dist.report.files import write_whole
from mtids_dist.report.folder import read_run
from mtids_dist.report.run_page import run_page
from mtids_dist.report.search import holds_search, lineage_png, read_search, search_page

REPORT, LINEAGE_PICTURE = "report.html", "lineage.png"


def write_report(folder: Path, store: Path | None = None) -> Path:
    """Write `report.html` into a run or search folder, finished or not, and return its path; the page needs no other file.

    Beside the page of a search whose members copy each other lies its lineage as a picture, `lineage.png`.

    :param store: where the store of a run lies now, if no longer where evaluation.json says.
    :raises InputError: no such folder, nothing of a run or search in it, or one of its files is broken.
    """
    folder = Path(folder)
    page = _search_page(folder) if holds_search(folder) else run_page(read_run(folder), store)
    return write_whole(folder / REPORT, page.encode())


def _search_page(folder: Path) -> str:
    search = read_search(folder)
    page, picture = search_page(search), lineage_png(search)
    if picture is not None:
        write_whole(folder / LINEAGE_PICTURE, picture)
    return page

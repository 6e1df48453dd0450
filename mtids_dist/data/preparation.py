"""`prepare`: a folder of CT series and a node table -> the Parquet store, by Ray Data, going on where a run was stopped."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mtids_dist.data.manifest import MANIFEST, PRIVATE
from mtids_dist.data.on_ray import map_on_ray, running_ray
from mtids_dist.data.prepare_config import PrepareConfig, PrepareSummary
from mtids_dist.data.prepare_input import Request, earlier_request, finished_request, stage_request
from mtids_dist.data.prepare_plan import Plan, Planner, Unit
from mtids_dist.data.prepare_units import UnitRecord, finished_record, process_unit
from mtids_dist.data.private import open_private
from mtids_dist.data.progress import OnCounts, Progress, Tally, no_counts, no_progress
from mtids_dist.data.rejections import count_reasons, rejection_table
from mtids_dist.data.store import Store, open_store
from mtids_dist.data.writer import StoreWriter, refuse_foreign
from mtids_dist.dicom import Scan, Skipped, SliceHeader, group_series, list_files, read_nodes, scan_headers
from mtids_dist.errors import InputError
from mtids_dist.shared_storage import check_shared

FILES_PER_TASK = 256
PACKAGES = ("numpy", "pyarrow", "pydicom", "pylibjpeg", "ray", "scipy")
"""Whose versions the manifest records."""


def prepare(
    dicom_folder: str | Path,
    nodes_csv: str | Path,
    store: str | Path,
    config: PrepareConfig | None = None,
    progress: Progress = no_progress,
    on_counts: OnCounts = no_counts,
) -> PrepareSummary:
    """Cut a crop for every node of the table out of its CT series and write them as a store.

    Uses the Ray that is initialised, or a local one. A second call with the same arguments continues what an interrupted one
    left, and does nothing where the store is finished. Whatever can't be used stands in `rejected.parquet`; node rows =
    crops + rejected nodes, files = used + skipped.

    `on_counts` is told how many nodes have become crops or were rejected, each time that there are more.

    Raises InputError for a missing folder or table, for a folder that holds something else or that not every node of the
    cluster sees, and for an unfinished or finished store that was begun with other settings or other input; WorkFailedError
    if the work itself broke down.
    """
    start = time.monotonic()
    # Workers may have another working directory.
    dicom_folder, nodes_csv, path = Path(dicom_folder).absolute(), Path(nodes_csv), Path(store).absolute()
    config = config or PrepareConfig()
    table = read_nodes(nodes_csv)
    paths = list_files(dicom_folder)
    _refuse_place(path, dicom_folder)
    check_shared(writes={"STORE": path}, reads={"DICOM": dicom_folder})
    finished = open_store(path) if (path / MANIFEST).exists() else None
    private = open_private(path, config.key_file)
    request = Request.of(config, private, dicom_folder, paths, nodes_csv)
    if finished:
        request.refuse_other(finished_request(finished), path)
        return _summary(finished, time.monotonic() - start, already_done=True)
    writer = StoreWriter(path=path, crop_shape=(config.crop,) * 3, spacing_mm=config.spacing_mm)
    _begin(writer, request)
    with running_ray():
        scan = _scan(paths, path.name, progress)
        plan = Planner(scan, table, dicom_folder, config, private).plan()
        private.write_lookup(plan.lookup)
        node_rows = len(table.nodes) + len(table.rejected)
        tally = Tally(node_rows, on_counts)
        tally.add(rejected=sum(rejection.kind == "node" for rejection in plan.rejected))
        earlier, records = _cut_crops(plan.units, writer, progress, tally)
    _finish(writer, request, scan, plan, records, node_rows, config.folds)
    return _summary(open_store(path), time.monotonic() - start, resumed_parts=earlier)


def _refuse_place(store: Path, dicom_folder: Path) -> None:
    refuse_foreign(store)
    if store.resolve().is_relative_to(dicom_folder.resolve()):
        raise InputError("the store must not lie inside the DICOM folder", where=str(store))
    if (store / MANIFEST).exists() and not (store / PRIVATE / "key").exists():
        raise InputError(f"a finished store without its {PRIVATE}/ can't be compared, name another folder", where=str(store))


def _begin(writer: StoreWriter, request: Request) -> None:
    earlier = earlier_request(writer.path)
    if earlier is not None:
        request.refuse_other(earlier, writer.path)
    writer.begin()
    stage_request(request, writer.path)


def _scan(paths: Sequence[Path], store: str, progress: Progress) -> Scan:
    """Header scan by Ray Data: reading headers keeps a core busy, and pydicom's warnings can't be silenced in threads."""
    chunks = [paths[i : i + FILES_PER_TASK] for i in range(0, len(paths), FILES_PER_TASK)]
    headers: list[SliceHeader | Skipped] = []
    progress(0, len(paths), "scanning headers")
    for found in map_on_ray(scan_headers, chunks, what="the header scan", name=f"{store}-headers"):
        headers += found
        progress(len(headers), len(paths), "scanning headers")
    series, skipped = group_series(headers)
    return Scan(series, skipped, len(paths))


def _cut_crops(units: Sequence[Unit], writer: StoreWriter, progress: Progress, tally: Tally) -> tuple[int, list[UnitRecord]]:
    """How many parts an earlier run left, and the records of all units."""
    records = {unit.name: record for unit in units if (record := finished_record(writer.path, unit))}
    earlier = len(records)
    todo = [unit for unit in units if unit.name not in records]
    size = {unit.id: len(unit.jobs) for unit in units}
    total, done = sum(size.values()), sum(size[record.id] for record in records.values())
    progress(done, total, "cutting crops")
    for record in records.values():
        _count(record, tally)
    process = partial(process_unit, writer=writer, run=secrets.token_hex(8))
    fresh = []
    for record in map_on_ray(process, todo, what="cutting crops", name=f"{writer.path.name}-crops"):
        fresh.append(record)
        done += size[record.id]
        _count(record, tally)
        progress(done, total, "cutting crops")
    return earlier, [*records.values(), *fresh]


def _count(record: UnitRecord, tally: Tally) -> None:
    tally.add(prepared=record.part.rows if record.part else 0, rejected=len(record.rejected))


def _finish(
    writer: StoreWriter, request: Request, scan: Scan, plan: Plan, records: Sequence[UnitRecord], node_rows: int, folds: int
) -> None:
    rejected = rejection_table([*plan.rejected, *(rejection for record in records for rejection in record.rejected)])
    parts = [record.part for record in records if record.part]
    rejected_nodes = rejected.column("kind").to_pylist().count("node")
    crops = sum(part.rows for part in parts)
    files_used = sum(len(series.paths) for series in scan.series)
    assert crops + rejected_nodes == node_rows, f"{node_rows} node rows, {crops} crops, {rejected_nodes} rejected"
    assert files_used + len(scan.skipped) == scan.files, f"{scan.files} files, {files_used} used, {len(scan.skipped)} skipped"
    counts = {
        "node_rows": node_rows,
        "crops": crops,
        "rejected_nodes": rejected_nodes,
        "files": scan.files,
        "files_used": files_used,
        "files_skipped": len(scan.skipped),
    }
    writer.finish(
        parts,
        made_by="prepare",
        folds=folds,
        counts=counts,
        settings=request.settings,
        input=request.input,
        rejected=rejected,
        packages=PACKAGES,
    )


def _summary(store: Store, seconds: float, *, already_done: bool = False, resumed_parts: int = 0) -> PrepareSummary:
    rejected = store.rejected()
    return PrepareSummary(
        store=store.path,
        patients=sum(split.patients for split in store.manifest.splits.values()),
        splits={name: split.rows for name, split in store.manifest.splits.items()},
        reasons={} if rejected is None else count_reasons(rejected),
        already_done=already_done,
        resumed_parts=resumed_parts,
        seconds=round(seconds, 2),
        **store.manifest.counts,
    )

"""The synthetic cohort: `make_phantom` writes chest CTs as DICOM series with their node table."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from mtids_dist.dicom.nodes import COLUMNS
from mtids_dist.dicom.phantom_dicom import make_uid, patient_id, write_series
from mtids_dist.dicom.phantom_patient import PhantomPatient, draw_patient
from mtids_dist.dicom.phantom_settings import PhantomConfig
from mtids_dist.errors import InputError

Progress = Callable[[int, int], None]
"""Called with (patients done, patients in all)."""


def make_phantom(
    out: Path,
    *,
    patients: int | None = None,
    seed: int | None = None,
    config: PhantomConfig | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic cohort: `out/dicom/<patient>/` (one CT series each), `out/phantom.json`, and `out/nodes.csv`, returned.

    `patients` and `seed` override `config`. The bytes follow from the settings alone, not from `workers` (threads; default:
    the CPUs at hand), and patient i not from the number of patients. An interrupted call is gone on with by the same call.
    Raises InputError for settings out of range, or when `out` holds something else.
    """
    config = _override(config or PhantomConfig(), patients, seed)
    _claim(out, config)
    done = 0
    with ThreadPoolExecutor(workers or _cpus()) as pool:
        rows = []
        for patient_rows in pool.map(lambda index: _make_patient(out / "dicom", config, index), range(config.patients)):
            rows += patient_rows
            done += 1
            if progress is not None:
                progress(done, config.patients)
    return _write_table(out / "nodes.csv", rows)


def node_rows(config: PhantomConfig, patient: PhantomPatient) -> list[tuple[str, ...]]:
    """The patient's rows of the node table, in the order of `COLUMNS`; an empty cell is an unknown label."""
    head = (str(make_uid(config, patient.index, "series")), patient_id(config, patient.index))
    return [
        (
            *head,
            str(node.node_id),
            *(f"{value:.2f}" for value in node.position_mm),
            f"{node.written_short_axis_mm:.1f}",
            node.written_station or "",
            "" if node.written_metastasis is None else str(node.written_metastasis),
        )
        for node in patient.nodes
    ]


def _override(config: PhantomConfig, patients: int | None, seed: int | None) -> PhantomConfig:
    given = {name: value for name, value in (("patients", patients), ("seed", seed)) if value is not None}
    try:
        return PhantomConfig(**{**config.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = "phantom " + ".".join(str(part) for part in first["loc"])
        raise InputError(first["msg"].lower(), where=where, found=first["input"]) from None


def _claim(out: Path, config: PhantomConfig) -> None:
    """Make the folder this cohort's, or see that it is."""
    settings, text = out / "phantom.json", config.model_dump_json(indent=2) + "\n"
    if out.exists() and not out.is_dir():
        raise InputError("the phantom needs a folder", where=str(out), found="a file")
    if settings.exists():
        if settings.read_text() != text:
            raise InputError("holds a phantom cohort made with other settings", where=str(out), allowed="a new or empty folder")
    elif out.exists() and any(out.iterdir()):
        raise InputError("holds other files", where=str(out), allowed="a new or empty folder")
    (out / "dicom").mkdir(parents=True, exist_ok=True)
    settings.write_text(text)


def _make_patient(folder: Path, config: PhantomConfig, index: int) -> list[tuple[str, ...]]:
    patient = draw_patient(config, index)
    final = folder / patient_id(config, index)
    if not final.exists():
        unfinished = folder / f".{final.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        write_series(unfinished, config, patient)
        unfinished.rename(final)
    return node_rows(config, patient)


def _write_table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return unfinished.rename(path)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

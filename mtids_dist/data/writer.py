"""What `prepare` and the public data sets write a store through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mtids_dist.data.manifest import (
    MANIFEST,
    PRIVATE,
    REJECTED,
    STAGING,
    FileEntry,
    Manifest,
    PartFile,
    SplitCount,
    file_entry,
    versions_of,
    write_atomically,
)
from mtids_dist.data.schema import CORE_LABELS, TEST_FOLD, CropShape, store_schema
from mtids_dist.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StoreWriter:
    """Writes the parts of a store, then its manifest. Holds no state of its own, so Ray workers can each have a copy.

    `labels` are the label columns beside `station` and `metastasis`. Call `begin` once before the first part.
    """

    path: Path
    crop_shape: CropShape
    spacing_mm: float | None
    labels: Mapping[str, pa.DataType] = field(default_factory=dict)
    value_kind: str = "hu"
    row_group_rows: int = 64

    @property
    def schema(self) -> pa.Schema:
        """The schema that every part gets."""
        return store_schema(self.crop_shape, self.labels)

    def begin(self) -> None:
        """Make the folder, or take up an unfinished store; InputError where it holds anything else."""
        refuse_foreign(self.path)
        if (self.path / MANIFEST).exists():
            raise InputError("this folder holds a finished store already, name another", where=str(self.path))
        (self.path / STAGING).mkdir(parents=True, exist_ok=True)

    def write_part(self, fold: int, name: int | str, table: pa.Table) -> PartFile:
        """Write rows of one fold as `part-<fold>-<name>.parquet`, whole or not at all; the entry goes to `finish`.

        `table` holds the schema's columns in any order; a missing column is null throughout, `fold` is filled in.
        """
        rows = self._in_schema(fold, table)
        path = self.path / part_name(fold, name)
        _write_parquet(path, rows, row_group_size=self.row_group_rows)
        return PartFile(**file_entry(path).model_dump(), fold=fold, rows=len(rows))

    def _in_schema(self, fold: int, table: pa.Table) -> pa.Table:
        schema = self.schema
        if unknown := sorted(set(table.column_names) - set(schema.names)):
            raise ValueError(f"columns of a part must be in the store's schema, found {', '.join(unknown)}")
        fold_column = pa.array([fold] * len(table), pa.int8())
        columns = {name: table.column(name) for name in table.column_names} | {"fold": fold_column}
        return pa.table([_cast(columns.get(f.name), f.type, len(table)) for f in schema], schema=schema)

    def finish(
        self,
        parts: Iterable[PartFile],
        *,
        made_by: str,
        folds: int,
        counts: Mapping[str, int],
        settings: Mapping[str, Any] | None = None,
        input: Mapping[str, str] | None = None,
        rejected: pa.Table | None = None,
        packages: Iterable[str] = ("numpy", "pyarrow"),
    ) -> Manifest:
        """Write `rejected.parquet` and, last of all, `manifest.json`; stray parts of an interrupted run are removed."""
        parts = tuple(sorted(parts, key=lambda part: part.name))
        splits, test_patients = self._splits(parts, folds)
        manifest = Manifest(
            made_by=made_by,
            versions=versions_of(packages),
            settings=dict(settings or {}),
            input=dict(input or {}),
            crop_shape=self.crop_shape,
            spacing_mm=self.spacing_mm,
            value_kind=self.value_kind,
            label_columns=(*CORE_LABELS, *self.labels),
            folds=folds,
            splits=splits,
            test_patients=test_patients,
            counts=dict(counts),
            parts=parts,
            rejected=None if rejected is None else self._write_rejected(rejected),
        )
        self._remove_strays(parts)
        write_atomically(self.path / MANIFEST, manifest.model_dump_json(indent=1).encode())
        shutil.rmtree(self.path / STAGING, ignore_errors=True)
        return manifest

    def _splits(self, parts: tuple[PartFile, ...], folds: int) -> tuple[dict[str, SplitCount], tuple[str, ...]]:
        patients: dict[int, set[str]] = {fold: set() for fold in (*range(folds), TEST_FOLD)}
        for part in parts:
            column = pq.read_table(self.path / part.name, columns=["patient"]).column("patient")
            patients[part.fold].update(pc.unique(column).to_pylist())
        whole = sum(len(of_fold) for of_fold in patients.values()) == len(set().union(*patients.values()))
        if not whole:
            raise ValueError("a patient's rows must all lie in one fold, found a patient in two")
        rows = {fold: sum(part.rows for part in parts if part.fold == fold) for fold in patients}
        splits = {fold_name(fold): SplitCount(rows=rows[fold], patients=len(patients[fold])) for fold in patients}
        return splits, tuple(sorted(patients[TEST_FOLD]))

    def _write_rejected(self, rejected: pa.Table) -> FileEntry:
        _write_parquet(self.path / REJECTED, rejected)
        return file_entry(self.path / REJECTED)

    def _remove_strays(self, parts: tuple[PartFile, ...]) -> None:
        known = {part.name for part in parts}
        for path in (*self.path.glob("part-*.parquet"), *self.path.glob(".*.tmp")):
            if path.name not in known:
                path.unlink()


def fold_name(fold: int) -> str:
    """`test` for the locked test list, else the fold's number."""
    return "test" if fold == TEST_FOLD else str(fold)


def part_name(fold: int, name: int | str) -> str:
    """The file name of a part: `part-<fold>-<name>.parquet`."""
    return f"part-{fold_name(fold)}-{name if isinstance(name, str) else f'{name:04d}'}.parquet"


def refuse_foreign(path: Path) -> None:
    """InputError where `path` is a file, or a folder with contents that is no store, finished or not."""
    if path.exists() and not path.is_dir():
        raise InputError("a store is a folder, this is a file", where=str(path))
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if names - {PRIVATE} and not names & {MANIFEST, STAGING}:
        raise InputError("this folder is not empty and holds no store, name another", where=str(path))


def _cast(column: pa.ChunkedArray | pa.Array | None, kind: pa.DataType, rows: int) -> pa.ChunkedArray | pa.Array:
    if column is None:
        return pa.nulls(rows, kind)
    return column if column.type == kind else column.cast(kind)


def _write_parquet(path: Path, table: pa.Table, row_group_size: int | None = None) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_size)
    temporary.replace(path)

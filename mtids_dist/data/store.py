"""Reading a store: which folds it has, their files, labels and crops, in an order that never changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from mtids_dist.data.manifest import MANIFEST, REJECTED, STAGING, Manifest, file_entry
from mtids_dist.data.schema import CROP, ROW_INDEX, TEST_FOLD, CropShape
from mtids_dist.data.writer import fold_name
from mtids_dist.errors import InputError


class Split(str, Enum):
    """The parts a cohort plays once a fold is held out; the locked test list is none of the folds."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Store:
    """A finished store. Store order: part files sorted by name, rows in file order."""

    path: Path
    manifest: Manifest

    @property
    def crop_shape(self) -> CropShape:
        """Voxels in z, y, x."""
        return self.manifest.crop_shape

    @property
    def spacing_mm(self) -> float | None:
        """Isotropic voxel spacing; None where it has no meaning."""
        return self.manifest.spacing_mm

    @property
    def folds(self) -> tuple[int, ...]:
        """The numbers of the folds, without the test list."""
        return tuple(range(self.manifest.folds))

    def folds_of(self, split: Split, held_out: int) -> tuple[int, ...]:
        """The folds that make up `split` when fold `held_out` is kept for validation; InputError if they hold no row."""
        if held_out not in self.folds:
            raise InputError("no such fold", where=f"{self.path}", found=held_out, allowed=f"0 to {self.manifest.folds - 1}")
        folds = {
            Split.TRAIN: tuple(fold for fold in self.folds if fold != held_out),
            Split.VALIDATION: (held_out,),
            Split.TEST: (TEST_FOLD,),
        }[split]
        if not self.count(folds):
            filled = ", ".join(fold_name(f) for f in (*self.folds, TEST_FOLD) if self.count([f]))
            raise InputError(
                f"no rows for {split.value} with fold {held_out} held out; filled folds: {filled}", where=str(self.path)
            )
        return folds

    def count(self, folds: Iterable[int]) -> int:
        """How many rows these folds hold."""
        wanted = set(folds)
        return sum(part.rows for part in self.manifest.parts if part.fold in wanted)

    def files(self, folds: Iterable[int]) -> list[Path]:
        """The part files of these folds, in store order."""
        wanted = set(folds)
        return [self.path / name for name in sorted(part.name for part in self.manifest.parts if part.fold in wanted)]

    def labels(self, folds: Iterable[int]) -> pa.Table:
        """Every column but `crop`, all rows of these folds in store order."""
        paths = self.files(folds)
        if not paths:
            return self._empty_labels()
        names = [name for name in _open_part(paths[0]).schema_arrow.names if name != CROP]
        return pa.concat_tables(_read_columns(path, names) for path in paths)

    def _empty_labels(self) -> pa.Table:
        if not self.manifest.parts:
            return pa.table({})
        schema = pq.read_schema(self.path / self.manifest.parts[0].name)
        return pa.schema([column for column in schema if column.name != CROP]).empty_table()

    def rejected(self) -> pa.Table | None:
        """What was refused and why; None for a store made from a data set that refuses nothing."""
        return pq.read_table(self.path / REJECTED) if self.manifest.rejected else None

    def batches(
        self, folds: Iterable[int], *, batch_size: int, start: int = 0, step: int = 1, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows start, start + step, ... of these folds in store order, `batch_size` at a time (the last batch may be short).

        Each batch has the asked columns (all if None) and `row_index`, int64: the row's number in that order, so that
        what ranks work out with (start=rank, step=world_size) can be put back together. One row group is in memory at a time.
        """
        pending: list[pa.Table] = []
        for rows in self._strided(folds, start, step, columns):
            pending.append(rows)
            while sum(map(len, pending)) >= batch_size:
                joined = pa.concat_tables(pending)
                yield _one_batch(joined.slice(0, batch_size))
                rest = joined.slice(batch_size)
                pending = [rest] if len(rest) else []
        if pending:
            yield _one_batch(pa.concat_tables(pending))

    def _strided(self, folds: Iterable[int], start: int, step: int, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        first, wanted = 0, start
        for path in self.files(folds):
            with _open_part(path) as file:
                for group in range(file.num_row_groups):
                    end = first + file.metadata.row_group(group).num_rows
                    index = range(wanted, end, step)
                    if index:
                        with _damage_told(path):
                            rows = file.read_row_group(group, columns=None if columns is None else list(columns))
                        rows = rows.slice(index[0] - first) if step == 1 else rows.take([i - first for i in index])
                        yield rows.append_column(ROW_INDEX, pa.array(index, pa.int64()))
                        wanted = index[-1] + step
                    first = end

    def verify(self) -> None:
        """Read every file and compare checksums; InputError naming the first that differs."""
        entries = (*self.manifest.parts, *([self.manifest.rejected] if self.manifest.rejected else []))
        for entry in entries:
            if file_entry(self.path / entry.name).sha256 != entry.sha256:
                raise InputError("contents differ from the checksum in manifest.json", where=str(self.path / entry.name))


def open_store(path: str | Path) -> Store:
    """Open a finished store; InputError (one line) where there is none, or a file of it is missing or cut short."""
    path = Path(path)
    if not path.is_dir():
        raise InputError("no such store", where=str(path))
    if (path / STAGING).exists() and not (path / MANIFEST).exists():
        raise InputError("this store is unfinished; the `mtids-dist` command that began it goes on from here", where=str(path))
    if not (path / MANIFEST).exists():
        raise InputError(f"this folder is no store: it has no {MANIFEST}", where=str(path))
    store = Store(path, _read_manifest(path / MANIFEST))
    for part in store.manifest.parts:
        file = path / part.name
        size = file.stat().st_size if file.exists() else None
        if size != part.size:
            raise InputError(
                "a file of the store is not what manifest.json says", where=str(file), found=size, allowed=f"{part.size} bytes"
            )
    return store


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(place) for place in first["loc"])
        raise InputError(f"not a manifest that this version reads: {first['msg']}", where=f"{path} {where}".strip()) from None


def _open_part(path: Path) -> pq.ParquetFile:
    with _damage_told(path):
        return pq.ParquetFile(path, memory_map=True)


def _read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    with _open_part(path) as file, _damage_told(path):
        return file.read(columns=list(names))


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """InputError naming the part file where its bytes are not what was written."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError("a part file of the store is damaged", where=str(path), found=str(error).splitlines()[0]) from error


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    (batch,) = rows.combine_chunks().to_batches()
    return batch

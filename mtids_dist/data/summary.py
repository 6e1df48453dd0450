"""What a store holds: rows, patients and labels a fold, what is missing, what was rejected and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from mtids_dist.data.rejections import count_reasons
from mtids_dist.data.schema import TEST_FOLD
from mtids_dist.data.store import Store
from mtids_dist.data.writer import fold_name
from mtids_dist.settings import Settings

MISSING = "missing"


class FoldSummary(Settings):
    """One fold, or the test list."""

    rows: int
    patients: int
    labels: dict[str, dict[str, int]]
    """label column -> value (or `missing`) -> rows"""


class StoreSummary(Settings):
    """The answer of `mtids-dist inspect`."""

    store: str
    made_by: str
    crop_shape: tuple[int, int, int]
    spacing_mm: float | None
    value_kind: str
    rows: int
    patients: int
    folds: dict[str, FoldSummary]
    mean_outside: float | None
    """mean share of a crop outside its scan"""
    rejected: dict[str, int]
    """`node: <reason>` and `file: <reason>` -> how many"""
    counts: dict[str, int]
    """of the manifest: what came in and what became of it"""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        size = " x ".join(map(str, self.crop_shape))
        spacing = f"{self.spacing_mm:g} mm" if self.spacing_mm else "no spacing"
        console = Console(width=160, no_color=True)
        with console.capture() as capture:
            for column in next(iter(self.folds.values())).labels if self.folds else ():
                console.print(self._table(column))
        lines = [
            f"{self.store} (made by {self.made_by})",
            f"{self.rows} crops of {size} voxels, {spacing}, {self.value_kind}; {self.patients} patients",
            *(line.rstrip() for line in capture.get().splitlines()),
            *(f"rejected, {reason}: {count}" for reason, count in self.rejected.items()),
        ]
        return "\n".join(lines)

    def _table(self, column: str) -> Table:
        values = sorted({value for fold in self.folds.values() for value in fold.labels[column]}, key=value_order)
        table = Table("fold", "rows", "patients", *values, title=column, title_justify="left", box=None)
        for name, fold in self.folds.items():
            cells = (str(fold.labels[column].get(value, 0)) for value in values)
            table.add_row(name, str(fold.rows), str(fold.patients), *cells)
        return table


def summarise(store: Store) -> StoreSummary:
    """Counts of a store; reads its label columns, no crops."""
    folds = {fold_name(fold): _fold(store, store.labels([fold])) for fold in (*store.folds, TEST_FOLD) if store.manifest.parts}
    rejected = store.rejected()
    everything = store.labels((*store.folds, TEST_FOLD))
    outside = pc.mean(everything.column("outside")).as_py() if len(everything) else None
    return StoreSummary(
        store=str(store.path),
        made_by=store.manifest.made_by,
        crop_shape=store.crop_shape,
        spacing_mm=store.spacing_mm,
        value_kind=store.manifest.value_kind,
        rows=len(everything),
        patients=sum(fold.patients for fold in folds.values()),
        folds=folds,
        mean_outside=outside,
        rejected={} if rejected is None else count_reasons(rejected),
        counts=store.manifest.counts,
    )


def _fold(store: Store, rows: pa.Table) -> FoldSummary:
    labels = {column: _counts(rows.column(column)) for column in store.manifest.label_columns}
    return FoldSummary(rows=len(rows), patients=len(pc.unique(rows.column("patient"))), labels=labels)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = Counter(MISSING if value is None else str(value) for value in column.to_pylist())
    return dict(sorted(counts.items(), key=lambda item: value_order(item[0])))


def value_order(value: str) -> tuple[bool, int, str]:
    """2R before 10R, and what is missing last."""
    digits = "".join(c for c in value if c.isdigit())
    return value == MISSING, int(digits) if digits else 0, value

"""A picture of some crops, a row a class, with their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtids_dist.data.schema import CROP, ROW_INDEX, TEST_FOLD, crops_of
from mtids_dist.data.store import Store
from mtids_dist.data.summary import value_order
from mtids_dist.errors import InputError

MEDIASTINAL_WINDOW_HU = (-160.0, 240.0)
"""Width 400, level 40: what mediastinal nodes are read in."""


def draw_montage(
    store: Store, png: str | Path, *, column: str | None = None, columns: int = 8, rows: int = 16, seed: int = 0
) -> None:
    """Write a PNG with the axial mid slice of up to `columns` crops of each of the first `rows` values of a label column.

    `column` defaults to the first label column that is filled at all (`station`, if it is). Patient's left is on the right.
    Raises InputError for an empty store, an unknown column, or a picture that can't be written.
    """
    folds = (*store.folds, TEST_FOLD)
    labels = store.labels(folds)
    if not len(labels):
        raise InputError("the store holds no crop, so there is nothing to draw", where=str(store.path))
    column = column or _filled_column(store, labels)
    if column not in store.manifest.label_columns:
        allowed = ", ".join(store.manifest.label_columns)
        raise InputError("no such label column", where=str(store.path), found=column, allowed=allowed)
    chosen = _choose(labels.column(column).to_pylist(), columns, rows, seed)
    slices = _mid_slices(store, folds, {index for indices in chosen.values() for index in indices})
    _draw(store, labels, column, chosen, slices, Path(png))


def _filled_column(store: Store, labels: pa.Table) -> str:
    names = store.manifest.label_columns
    return next((name for name in names if labels.column(name).null_count < len(labels)), names[0])


def _choose(values: list[Any], columns: int, rows: int, seed: int) -> dict[str, list[int]]:
    """Value -> up to `columns` random rows that have it, in order."""
    of_value: defaultdict[str, list[int]] = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(len(values)):
        value = "missing" if values[index] is None else str(values[index])
        of_value[value].append(int(index))
    return {value: sorted(of_value[value][:columns]) for value in sorted(of_value, key=value_order)[:rows]}


def _mid_slices(store: Store, folds: Iterable[int], wanted: set[int]) -> dict[int, npt.NDArray[np.int16]]:
    slices = {}
    for batch in store.batches(folds, batch_size=64, columns=[CROP]):
        crops = crops_of(batch)
        for place, index in enumerate(batch.column(ROW_INDEX).to_pylist()):
            if index in wanted:
                slices[index] = crops[place, crops.shape[1] // 2].copy()
    return slices


def _draw(
    store: Store,
    labels: pa.Table,
    column: str,
    chosen: dict[str, list[int]],
    slices: dict[int, npt.NDArray[np.int16]],
    png: Path,
) -> None:
    # A canvas of its own instead of pyplot: no display is asked for, and nothing is left behind in a global.
    columns = max(len(indices) for indices in chosen.values())
    figure = Figure(figsize=(1.5 * columns + 1, 1.9 * len(chosen)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    low, high = _window(store, slices)
    for line, (value, indices) in zip(axes, chosen.items(), strict=True):
        line[0].text(-0.1, 0.5, value, transform=line[0].transAxes, ha="right", va="center", fontsize=11, fontweight="bold")
        for axis, index in zip(line, indices, strict=False):
            axis.imshow(slices[index], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axis.set_title(_caption(store, labels, index, column), fontsize=7)
    try:
        figure.savefig(png, format="png")
    except OSError as error:
        raise InputError(f"the picture can't be written: {error.strerror or error}", where=str(png)) from error


def _window(store: Store, slices: dict[int, npt.NDArray[np.int16]]) -> tuple[float, float]:
    if store.manifest.value_kind == "hu":
        return MEDIASTINAL_WINDOW_HU
    return float(min(s.min() for s in slices.values())), float(max(s.max() for s in slices.values()))


def _caption(store: Store, labels: pa.Table, index: int, column: str) -> str:
    row = labels.slice(index, 1).to_pylist()[0]
    others = [name for name in store.manifest.label_columns if name != column and row[name] is not None]
    size = "" if row["short_axis_mm"] is None else f"{row['short_axis_mm']:.0f} mm"
    return "\n".join([size, *(f"{name} {row[name]}" for name in others[:2])]).strip()

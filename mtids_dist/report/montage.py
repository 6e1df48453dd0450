"""Crops beside their truth and prediction: a look at what the network sees."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.image import imsave

from mtids_dist.data import CROP, crops_of, open_store
from mtids_dist.errors import InputError
from mtids_dist.report.folder import RunFolder
from mtids_dist.tasks import MISSING

MOST_CROPS = 24
_ENLARGED_PX = 144


@dataclass(frozen=True)
class Reading:
    """What one task says of a node."""

    task: str
    truth: str
    """"?" where unknown"""
    predicted: str
    probability: float
    right: bool | None


@dataclass(frozen=True)
class Tile:
    """One crop's middle slice as a PNG data URI, with the readings of it."""

    image: str
    node: str
    size: str
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Montage:
    """Tiles evenly spaced in store order; or, with none, why there are none."""

    tiles: tuple[Tile, ...]
    note: str


def montage(run: RunFolder, store: Path | None = None) -> Montage:
    """Middle slices of up to 24 evaluated nodes, taken at even steps through the store and not by how well they went.

    `store`: where the store lies now, if no longer where evaluation.json says.
    """
    if run.evaluation is None or run.predictions is None:
        return Montage((), "Crops are shown once the run has been evaluated.")
    where = store or Path(str(run.evaluation.get("store", "")))
    try:
        crops = _crops(run.evaluation, run.predictions, where)
    except (InputError, OSError, pa.ArrowException) as error:
        return Montage((), f"The crops can't be shown, since the store can't be read: {error}")
    if crops is None:
        return Montage((), "The crops can't be shown: the store holds other nodes than were evaluated.")
    tiles = tuple(_tile(run, row, crop) for row, crop in crops)
    return Montage(tiles, f"{len(tiles)} of {len(run.predictions)} nodes at even steps through the store, whatever their result.")


_Crops = list[tuple[int, npt.NDArray[np.int16]]]


def _crops(evaluation: Mapping[str, Any], predictions: pa.Table, where: Path) -> _Crops | None:
    """(row of predictions, its crop); None where the store's rows are not those of the predictions."""
    store, folds = open_store(where), evaluation.get("folds", [])
    rows = len(predictions)
    if store.count(folds) != rows or not rows:
        return None
    step = max(1, -(-rows // MOST_CROPS))
    shown = [*range(step // 2, rows, step)]
    nodes = predictions.column("node").take(shown).to_pylist()
    found = pa.Table.from_batches(store.batches(folds, batch_size=MOST_CROPS, start=step // 2, step=step, columns=[CROP, "node"]))
    if found.column("node").to_pylist() != nodes:
        return None
    return list(zip(shown, crops_of(found), strict=True))


def _tile(run: RunFolder, row: int, crop: npt.NDArray[np.int16]) -> Tile:
    assert run.evaluation is not None
    assert run.predictions is not None
    values = run.predictions.slice(row, 1).to_pylist()[0]
    size = values.get("short_axis_mm")
    return Tile(
        image=_png(crop[len(crop) // 2], run.evaluation.get("window")),
        node=str(values["node"])[:8],
        size="size unknown" if size is None else f"{size:.1f} mm",
        readings=tuple(_readings(run.evaluation["tasks"], values)),
    )


def _readings(tasks: Mapping[str, Any], values: Mapping[str, Any]) -> list[Reading]:
    readings = []
    for task, entry in tasks.items():
        if "classes" not in entry or f"{task}_label" not in values:
            continue
        probabilities, classes = values[f"{task}_probabilities"], entry["classes"]
        label, best = values[f"{task}_label"], int(np.argmax(probabilities))
        known = label != MISSING
        truth = classes[label] if known else "?"
        readings.append(Reading(task, truth, classes[best], probabilities[best], label == best if known else None))
    return readings


def _png(plane: npt.NDArray[np.int16], window: tuple[float, float] | None) -> str:
    """A plane [y, x] in grey through the window that the network sees, enlarged without smoothing, as a data URI."""
    low, high = window or (float(plane.min()), float(plane.max()) + 1.0)
    enlarge = max(1, _ENLARGED_PX // max(plane.shape))
    out = BytesIO()
    imsave(out, np.kron(plane, np.ones((enlarge, enlarge), np.int16)), cmap="gray", vmin=low, vmax=high, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()

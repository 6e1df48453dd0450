"""Numbers of a log as curves: values that are there, thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mtids_dist.report.folder import Line

Floats = npt.NDArray[np.float64]
Curve = tuple[Floats, Floats]

MOST_POINTS = 300


def entry(*keys: str) -> Callable[[Line], Any]:
    """Reads a nested entry of a line; None where any of the keys is not there."""

    def read(line: Line) -> Any:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return read


def curve(lines: Iterable[Line], value: Callable[[Line], Any]) -> Curve:
    """Steps [n] and values [n] of the lines where `value` gives a finite number."""
    points = [(line["step"], value(line)) for line in lines]
    kept = [(step, v) for step, v in points if isinstance(v, int | float) and math.isfinite(v)]
    array = np.array(kept, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def thin(points: Curve, most: int = MOST_POINTS) -> Curve:
    """At most `most` points: means over runs of neighbours."""
    x, y = points
    if len(x) <= most:
        return points
    edges = np.linspace(0, len(x), most + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts


def smooth(points: Curve, window: int | None = None) -> Curve:
    """A centred moving mean over `window` points (a twentieth of them if None), shorter at both ends."""
    x, y = points
    half = (window or len(y) // 20) // 2
    if half < 1:
        return points
    sums = np.concatenate([[0.0], np.cumsum(y)])
    first = np.maximum(np.arange(len(y)) - half, 0)
    last = np.minimum(np.arange(len(y)) + half + 1, len(y))
    return x, (sums[last] - sums[first]) / (last - first)

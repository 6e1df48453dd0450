"""Where nodes lie: each mediastinal IASLC station as a region between one patient's landmarks, and free places in it.

Borders after Rusch et al., "The IASLC lung cancer staging project: a proposal for a new international lymph node map",
J Thorac Oncol 4(5):568-577, 2009, simplified to boxes along the trachea, the arch and the oesophagus. Body frame as in
`phantom_anatomy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from mtids_dist.dicom.phantom_anatomy import Anatomy
from mtids_dist.dicom.phantom_shapes import F64
from mtids_dist.dicom.phantom_trunk import mediastinal_margin

_CANDIDATES = 80
_APEX_MM, _BASE_MM = 82.0, -106.0
_BULGE_MM = 4.0
"""How far a node's centre may bulge the mediastinal pleura."""

Uniform = Callable[[float, float], F64]


def _along_trachea(anatomy: Anatomy, z: F64, x: F64, y: F64) -> F64:
    return anatomy.trachea.at(z) + np.stack([x, y, np.zeros_like(z)], axis=1)


def _station_2r(a: Anatomy, u: Uniform) -> F64:
    return _along_trachea(a, u(a.landmarks.innominate_bottom + 1, _APEX_MM), u(-22, -9), u(-10, 10))


def _station_2l(a: Anatomy, u: Uniform) -> F64:
    return _along_trachea(a, u(a.landmarks.arch_top + 1, _APEX_MM), u(11, 23), u(-10, 12))


def _station_3a(a: Anatomy, u: Uniform) -> F64:
    return np.stack([u(-18, 20), a.landmarks.anterior_y - u(4, 13), u(4, 66)], axis=1)


def _station_3p(a: Anatomy, u: Uniform) -> F64:
    return _along_trachea(a, u(6, 74), u(-9, 3), u(14, 24))


def _station_4r(a: Anatomy, u: Uniform) -> F64:
    return _along_trachea(a, u(a.landmarks.azygos_bottom + 1, a.landmarks.innominate_bottom - 1), u(-20, 4), u(-20, -4))


def _station_4l(a: Anatomy, u: Uniform) -> F64:
    z = u(a.landmarks.left_pa_top + 2, a.landmarks.arch_top - 2)
    return _along_trachea(a, z, u(11, a.landmarks.ligament_x - 3), u(-8, 10))


def _station_5(a: Anatomy, u: Uniform) -> F64:
    x = a.landmarks.ligament_x + u(3, 18)
    return np.stack([x, u(-20, 0), u(a.landmarks.left_pa_top + 2, a.landmarks.arch_bottom)], axis=1)


def _station_6(a: Anatomy, u: Uniform) -> F64:
    outwards, along = np.array([0.76, -0.65, 0.0]), np.array([0.65, 0.76, 0.0])
    height = np.array([0.0, 0.0, 1.0])
    offsets = np.multiply.outer(u(17, 26), outwards) + np.multiply.outer(u(-14, 8), along) + np.multiply.outer(u(-12, 12), height)
    positions: F64 = a.landmarks.arch_front + offsets
    return positions


def _station_7(a: Anatomy, u: Uniform) -> F64:  # noqa: ARG001  # bounded by the carina, the frame's origin
    return np.stack([u(-14, 14), u(-6, 12), u(-48, -13)], axis=1)


def _station_8(a: Anatomy, u: Uniform) -> F64:
    centre = a.oesophagus.at(u(_BASE_MM, -51))
    beside = np.where(u(-1, 1) > 0, 1, -1) * u(9, 15)
    return centre + np.stack([beside, u(-8, 4), np.zeros_like(beside)], axis=1)


def _station_9(a: Anatomy, u: Uniform) -> F64:  # noqa: ARG001  # bounded by the pleura and the inferior pulmonary vein
    y, z, left = u(8, 30), u(_BASE_MM, -84), u(-1, 1) > 0
    margin = np.where(left, mediastinal_margin(1.0, y, z), mediastinal_margin(-1.0, y, z))
    return np.stack([np.where(left, 1, -1) * (margin + u(-3, _BULGE_MM)), y, z], axis=1)


_REGIONS: Mapping[str, Callable[[Anatomy, Uniform], F64]] = MappingProxyType(
    {
        "2R": _station_2r,
        "2L": _station_2l,
        "3A": _station_3a,
        "3P": _station_3p,
        "4R": _station_4r,
        "4L": _station_4l,
        "5": _station_5,
        "6": _station_6,
        "7": _station_7,
        "8": _station_8,
        "9": _station_9,
    }
)


def _pleural_room(positions: F64) -> F64:
    """Room [n] between body positions [n, 3] and the furthest place beyond the mediastinal pleura that a node may take."""
    x, y, z = positions.T
    margin = np.where(x > 0, mediastinal_margin(1.0, y, z), mediastinal_margin(-1.0, y, z))
    room: F64 = 2 * (margin + _BULGE_MM - np.abs(x))
    return room


def draw_stations(rng: np.random.Generator, count: int, weights: Mapping[str, float]) -> list[str]:
    """Stations of one patient's nodes by weight, each at most once before one comes a second time."""
    names = [name for name, weight in weights.items() if weight > 0]
    share = np.array([weights[name] for name in names])
    stations: list[str] = []
    while len(stations) < count:
        size = min(count - len(stations), len(names))
        stations += [names[i] for i in rng.choice(len(names), size=size, replace=False, p=share / share.sum())]
    return stations


def place(rng: np.random.Generator, anatomy: Anatomy, station: str, radius_mm: float, others: Sequence[tuple[F64, float]]) -> F64:
    """A body position [3] in `station` for a node of `radius_mm`, where organs and the `others` (centre, radius) leave most room.

    Node, organs and gaps are of like size in the mediastinum: a node may bulge over a neighbour's border, its centre is free.
    """
    candidates = _REGIONS[station](anatomy, lambda low, high: rng.uniform(low, high, _CANDIDATES))
    room = np.minimum(anatomy.clearance(candidates), _pleural_room(candidates))
    for centre, radius in others:
        room = np.minimum(room, np.linalg.norm(candidates - centre, axis=1) - radius)
    enough = min(radius_mm, float(np.quantile(room, 0.9)))
    chosen: F64 = candidates[rng.choice(np.flatnonzero(room >= enough))]
    return chosen

"""The trunk of a phantom: body wall, lungs, ribs, spine and diaphragm, as fields over whole slices in the body frame.

Body frame: mm of a mean adult, origin at the carina, x to left, y to posterior, z to superior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtids_dist.dicom.phantom_shapes import F32, F64, Canvas, Ellipsoid

AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU = -1000.0, -850.0, -100.0, 45.0

_CAVITY_CENTRE_Y = -3.0
_HEIGHTS = np.array([-180, -120, -60, 0, 40, 70, 90, 105])
_CAVITY_X = np.array([132, 132, 128, 118, 100, 76, 46, 12])
_CAVITY_Y = np.array([86, 86, 84, 80, 70, 54, 34, 10])
_MARGIN_HEIGHTS = np.array([-150, -60, -20, 5, 30, 60, 100])
_RIGHT_MARGIN = np.array([24, 26, 28, 31, 34, 34, 36])
_LEFT_MARGIN = np.array([27, 32, 36, 46, 42, 35, 36])
_MARGIN_DEPTHS = np.array([-95, -75, -55, 0, 25, 45, 85])
_MARGIN_SHARE = np.array([0.35, 0.6, 0.95, 1.0, 0.95, 0.8, 0.7])
_VERTEBRA_MM = 25.0


def mediastinal_margin(side: float, y: F64, z: F64) -> F64:
    """Distance of the mediastinal pleura from the midline: `side` +1 left, -1 right; y, z in the body frame."""
    widest = np.interp(z, _MARGIN_HEIGHTS, _LEFT_MARGIN if side > 0 else _RIGHT_MARGIN)
    margin: F64 = widest * np.interp(y, _MARGIN_DEPTHS, _MARGIN_SHARE)
    return margin


def spine_front(z: F64) -> F64:
    """y of the vertebral bodies' anterior face at height z: the thoracic kyphosis, in the body frame."""
    front: F64 = np.interp(z, [-160, -40, 20, 80, 120], [38, 36, 34, 25, 18])
    return front


@dataclass(frozen=True)
class Trunk:
    """What of the trunk differs between patients: subcutaneous fat, height of the diaphragm, where the ribs begin."""

    fat_mm: float
    diaphragm_mm: float
    rib_phase_mm: float
    breadth: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Trunk:
        """One patient's trunk."""
        return cls(rng.uniform(6, 26), rng.normal(-116, 5), rng.uniform(0, 26), rng.uniform(0.95, 1.08))

    def paint(self, canvas: Canvas) -> None:
        """Paint everything but the mediastinum's organs; the mediastinum itself is left as fat."""
        cavity = self._cavity(canvas)
        self._paint_wall(canvas, cavity)
        self._paint_ribs(canvas, cavity)
        self._paint_inside(canvas, cavity)
        _paint_spine(canvas)
        Ellipsoid(np.array([0.0, -91.0, -15.0]), np.array([17.0, 6.0, 85.0])).paint(canvas, 190.0)

    def _cavity(self, canvas: Canvas) -> F32:
        x, y, z = canvas.coordinates
        a = (np.interp(z, _HEIGHTS, _CAVITY_X) * self.breadth).astype(np.float32)
        b = np.interp(z, _HEIGHTS, _CAVITY_Y).astype(np.float32)
        radius = np.sqrt((x / a) ** 2 + ((y - np.float32(_CAVITY_CENTRE_Y)) / b) ** 2)
        distance: F32 = (radius - 1) * (0.5 * (a + b))
        return distance

    def _paint_wall(self, canvas: Canvas, cavity: F32) -> None:
        x, y, z = canvas.coordinates
        shoulders = np.interp(z, [-150, 20, 70, 120], [0.0, 0.0, 18.0, 22.0]).astype(np.float32)
        a, b = np.float32(152 * self.breadth) + shoulders, np.float32(104)
        muscle = (np.sqrt((x / a) ** 2 + ((y - 4) / b) ** 2) - 1) * (0.5 * (a + b))
        canvas.fill(muscle - np.float32(self.fat_mm), FAT_HU)
        canvas.fill(muscle, MUSCLE_HU)
        canvas.fill(cavity - 1, FAT_HU)

    def _paint_ribs(self, canvas: Canvas, cavity: F32) -> None:
        x, y, z = canvas.coordinates
        phase = (z + 0.45 * y + 0.06 * np.abs(x) + np.float32(self.rib_phase_mm)) / 26
        rib = np.asarray(np.abs((phase - np.floor(phase)) * 26 - 13) - 4.5, np.float32)
        np.maximum(rib, np.abs(cavity - 6) - 4, out=rib)
        np.maximum(rib, 20 - np.abs(x), out=rib)
        canvas.fill(rib, 320.0)

    def _paint_inside(self, canvas: Canvas, cavity: F32) -> None:
        x, y, z = canvas.coordinates
        yz = np.meshgrid(canvas.y_mm.astype(float), canvas.z_mm.astype(float))
        left, right = (mediastinal_margin(side, *yz).astype(np.float32)[:, :, None] for side in (1.0, -1.0))
        centre = np.where(x > 0, np.float32(72), np.float32(-70))
        lower_left = np.where(x > 0, np.float32(8), np.float32(0))
        dome = np.float32(self.diaphragm_mm) - lower_left - ((x - centre) / 62) ** 2 * 26 - ((y + 5) / 80) ** 2 * 30
        below = z - dome
        beside = np.maximum(cavity, np.where(x > 0, left - x, right + x))
        canvas.fill(np.maximum(beside, -below), LUNG_HU)
        canvas.fill(np.maximum(beside, below), np.where(x > 0, 50, 65).astype(np.float32))


def _paint_spine(canvas: Canvas) -> None:
    part = canvas.within(np.array([-45.0, 10.0, -400.0]), np.array([45.0, 112.0, 400.0]))
    if part is None:
        return
    x, y, z = part.coordinates
    depth = y - spine_front(z.astype(np.float64)).astype(np.float32)
    in_segment = np.mod(z, np.float32(_VERTEBRA_MM)) - _VERTEBRA_MM / 2
    transverse = np.maximum(np.sqrt((depth - 36) ** 2 + in_segment**2) - 5, np.abs(x) - 34)
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(depth - 55) - 17), np.abs(in_segment) - 7)
    part.fill(np.minimum(transverse, spinous), 330.0)
    part.fill(np.sqrt(x**2 + (depth - 38) ** 2) - 14, 350.0)
    body = (np.sqrt((x / 17) ** 2 + ((depth - 14) / 14) ** 2) - 1) * 15
    part.fill(body, 75.0)
    part.fill(np.maximum(body, np.abs(in_segment) - 10), 190.0)
    part.fill(np.sqrt(x**2 + (depth - 38) ** 2) - 9, 20.0)

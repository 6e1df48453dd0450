"""Shapes that paint themselves into a volume by their signed distance, with the partial-volume edge of a CT voxel.

All lengths are mm along one frame's axes: x to left, y to posterior, z to superior. Volumes are [z, y, x].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Canvas:
    """HU values [nz, ny, nx] and the ascending coordinates of their voxels; `edge_mm` is the width of a sharp border."""

    values: F32
    z_mm: F32
    y_mm: F32
    x_mm: F32
    edge_mm: float

    @property
    def coordinates(self) -> tuple[F32, F32, F32]:
        """x, y and z, shaped to broadcast over the volume."""
        return self.x_mm[None, None, :], self.y_mm[None, :, None], self.z_mm[:, None, None]

    def within(self, lower: F64, upper: F64) -> Canvas | None:
        """The part in the box from `lower` to `upper` (x, y, z), as a view; None if they do not meet."""
        spans = []
        for axis, low, high in zip((self.x_mm, self.y_mm, self.z_mm), lower, upper, strict=True):
            first, last = np.searchsorted(axis, (low - self.edge_mm, high + self.edge_mm))
            if first == last:
                return None
            spans.append(slice(first, last))
        x, y, z = spans
        return Canvas(self.values[z, y, x], self.z_mm[z], self.y_mm[y], self.x_mm[x], self.edge_mm)

    def fill(self, distance: F32, hu: F32 | float, softness_mm: float = 0.0) -> None:
        """Blend `hu` in where the signed distance is negative, over a ramp of the edge's width plus `softness_mm`."""
        share = distance * np.float32(-1.0 / (self.edge_mm + softness_mm))
        share += np.float32(0.5)
        np.clip(share, 0.0, 1.0, out=share)
        share *= np.asarray(hu, np.float32) - self.values
        self.values[...] += share


@dataclass(frozen=True)
class Tube:
    """A round tube along `points` [n, 3] with `radii` [n]; between two points both run linearly."""

    points: F64
    radii: F64

    @classmethod
    def smooth(cls, points: npt.ArrayLike, radii: npt.ArrayLike, *, pieces: int = 3) -> Tube:
        """A tube along a curve through the given points, `pieces` segments between two of them (Catmull-Rom)."""
        control = np.asarray(points, float)
        padded = np.concatenate([2 * control[:1] - control[1:2], control, 2 * control[-1:] - control[-2:-1]])
        t = np.arange(pieces)[:, None] / pieces
        spans = []
        for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
            spans.append(
                0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3)
            )
        knots = np.arange(len(control))
        along = np.append(np.arange((len(control) - 1) * pieces) / pieces, len(control) - 1)
        return cls(np.concatenate([*spans, control[-1:]]), np.interp(along, knots, np.broadcast_to(radii, knots.shape)))

    def grown(self, by_mm: float) -> Tube:
        """The same course with a larger radius: the wall around a lumen, or (negative) the lumen in a wall."""
        return Tube(self.points, self.radii + by_mm)

    def at(self, z_mm: npt.ArrayLike) -> F64:
        """Centre [..., 3] where the tube crosses height `z_mm`; for tubes that run along z."""
        order = np.argsort(self.points[:, 2], kind="stable")
        z = np.asarray(z_mm, float)
        course = self.points[order]
        x, y = (np.interp(z, course[:, 2], course[:, axis]) for axis in (0, 1))
        return np.stack([x, y, z], axis=-1)

    def distance(self, positions: F64) -> F64:
        """Signed distance [n] of positions [n, 3] from the surface."""
        a, b = self.points[:-1], self.points[1:] - self.points[:-1]
        offset = positions[:, None, :] - a
        t = np.clip((offset * b).sum(-1) / (b * b).sum(-1), 0, 1)
        away: F64 = np.linalg.norm(offset - t[..., None] * b, axis=-1) - (self.radii[:-1] + t * np.diff(self.radii))
        nearest: F64 = away.min(axis=1)
        return nearest

    def paint(self, canvas: Canvas, hu: float) -> None:
        """Fill the tube with `hu`."""
        for a, b, ra, rb in zip(self.points, self.points[1:], self.radii, self.radii[1:], strict=False):
            reach = max(ra, rb)
            part = canvas.within(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
            if part is not None:
                part.fill(_segment_distance(part, a, b - a, ra, rb), hu)


def _segment_distance(canvas: Canvas, start: F64, along: F64, first_radius: float, last_radius: float) -> F32:
    x, y, z = (c - np.float32(s) for c, s in zip(canvas.coordinates, start, strict=True))
    ux, uy, uz = (along / (along @ along)).astype(np.float32)
    bx, by, bz = along.astype(np.float32)
    t = np.clip(x * ux + y * uy + z * uz, 0.0, 1.0)
    squared = (x - t * bx) ** 2 + (y - t * by) ** 2 + (z - t * bz) ** 2
    distance: F32 = np.sqrt(squared) - (np.float32(first_radius) + t * np.float32(last_radius - first_radius))
    return distance


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with its axes along the frame's."""

    centre: F64
    radii: F64

    def distance(self, positions: F64) -> F64:
        """Signed distance [n] (first order, exact on the surface) of positions [n, 3]."""
        offset = positions - self.centre
        return np.asarray(ellipsoid_distance((offset[:, 0], offset[:, 1], offset[:, 2]), self.radii), np.float64)

    def paint(self, canvas: Canvas, hu: float) -> None:
        """Fill the ellipsoid with `hu`."""
        part = canvas.within(self.centre - self.radii, self.centre + self.radii)
        if part is not None:
            x, y, z = (c - np.float32(s) for c, s in zip(part.coordinates, self.centre, strict=True))
            part.fill(ellipsoid_distance((x, y, z), self.radii.astype(np.float32)), hu)


def ellipsoid_distance(offset: tuple[Floats, Floats, Floats], radii: Floats) -> Any:
    """Signed distance of an offset (x, y, z) from an ellipsoid's centre: k (k - 1) / |grad|, first order at the surface."""
    (x, y, z), (ax, ay, az) = offset, radii
    norm = np.sqrt((x / ax) ** 2 + (y / ay) ** 2 + (z / az) ** 2)
    gradient = np.sqrt((x / ax**2) ** 2 + (y / ay**2) ** 2 + (z / az**2) ** 2)
    return norm * (norm - 1) / np.maximum(gradient, np.asarray(1e-6, norm.dtype))

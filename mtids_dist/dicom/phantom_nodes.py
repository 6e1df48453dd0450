"""Lymph nodes of a phantom: size, shape, margin, texture and surroundings of benign and metastatic nodes, and their painting.

The two classes overlap in every trait. Their short axes differ by 0.55 standard deviations of the logarithm: an AUC of 0.65.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import betaincinv, ndtri

from mtids_dist.dicom.phantom_shapes import F32, F64, Canvas, ellipsoid_distance

SHORT_AXIS_MM = (5.5, 20.0)
FATTY_HILUM_HU, NECROSIS_HU = -70.0, 20.0
_SIZE_SPREAD = 0.235
_STRANDING_HU, _STRANDING_MM = (60.0, 100.0), 18.0
_FAT_HU = (-150.0, -50.0)
_WAVES = 6


@dataclass(frozen=True, kw_only=True)
class Traits:
    """How the nodes of one class are distributed: mean and standard deviation, or a probability."""

    median_short_axis_mm: float
    roundness: tuple[float, float]
    """Short over long axis."""
    irregularity: tuple[float, float]
    """Depth of the margin's waves as a share of the short radius."""
    softness_mm: tuple[float, float]
    """Extra width of the margin's ramp, mm."""
    heterogeneity_hu: tuple[float, float]
    hu: tuple[float, float]
    fatty_hilum: float
    necrosis: float
    stranding: float
    """Denser, streaky fat around the node, as where a tumour grows through its capsule."""


BENIGN = Traits(
    median_short_axis_mm=10.2,
    roundness=(0.60, 0.11),
    irregularity=(0.04, 0.04),
    softness_mm=(0.7, 0.7),
    heterogeneity_hu=(6.0, 5.0),
    hu=(46.0, 12.0),
    fatty_hilum=0.70,
    necrosis=0.06,
    stranding=0.06,
)
METASTATIC = Traits(
    median_short_axis_mm=11.6,
    roundness=(0.78, 0.11),
    irregularity=(0.16, 0.07),
    softness_mm=(2.4, 1.3),
    heterogeneity_hu=(16.0, 8.0),
    hu=(98.0, 15.0),
    fatty_hilum=0.05,
    necrosis=0.40,
    stranding=0.88,
)


@dataclass(frozen=True, kw_only=True)
class NodeLook:
    """One node's true appearance. Lengths in mm; `waves` are unit directions [6, 3] and phases [6] of margin and texture."""

    metastatic: bool
    short_axis_mm: float
    radii_mm: F64
    rotation: F64
    hu: float
    irregularity: float
    softness_mm: float
    heterogeneity_hu: float
    stranding_hu: float
    core_hu: float | None
    core_centre_mm: F64
    core_radius_mm: float
    waves: F64
    phases: F64

    @property
    def reach_mm(self) -> float:
        """Radius of a sphere that holds the whole node."""
        return float(self.radii_mm.max() * (1 + self.irregularity) + self.softness_mm)

    def _strand(self, part: Canvas, distance: F32, texture: F32) -> None:
        """Make the fat around the node denser, fading out over `_STRANDING_MM`."""
        fat = (part.values > _FAT_HU[0]) & (part.values < _FAT_HU[1])
        halo = np.clip(1 - distance / np.float32(_STRANDING_MM), 0.0, 1.0) * (1 + np.float32(0.4) * texture)
        part.values[...] += np.where(fat, np.float32(self.stranding_hu) * halo, np.float32(0))

    def paint(self, canvas: Canvas, position_mm: F64) -> None:
        """Paint the node with its centre at `position_mm` (x, y, z), in the canvas's frame."""
        reach = self.reach_mm + (_STRANDING_MM if self.stranding_hu else 0.0)
        part = canvas.within(position_mm - reach, position_mm + reach)
        if part is None:
            return
        x, y, z = (c - np.float32(p) for c, p in zip(part.coordinates, position_mm, strict=True))
        u, v, w = (r[0] * x + r[1] * y + r[2] * z for r in self.rotation.astype(np.float32))
        distance = ellipsoid_distance((u, v, w), self.radii_mm.astype(np.float32))
        radius = np.sqrt(u**2 + v**2 + w**2) + np.float32(1e-3)
        depth = self.irregularity * self.short_axis_mm / 2
        distance = distance - np.float32(depth) * self._ripple(u / radius, v / radius, w / radius, 5.0)
        texture = self._ripple(u, v, w, 2 * np.pi / 9.0)
        if self.stranding_hu:
            self._strand(part, distance, texture)
        part.fill(distance, np.float32(self.hu) + np.float32(self.heterogeneity_hu) * texture, self.softness_mm)
        if self.core_hu is not None:
            a, b, c = (q - np.float32(p) for q, p in zip((u, v, w), self.core_centre_mm, strict=True))
            core = np.sqrt(a**2 + b**2 + c**2) - np.float32(self.core_radius_mm)
            part.fill(np.maximum(core, distance + 1), self.core_hu)

    def _ripple(self, u: F32, v: F32, w: F32, frequency: float) -> F32:
        """A sum of plane waves with unit variance."""
        total = np.zeros(np.broadcast_shapes(u.shape, v.shape, w.shape), np.float32)
        for direction, phase in zip((frequency * self.waves).astype(np.float32), self.phases.astype(np.float32), strict=True):
            total += np.cos(direction[0] * u + direction[1] * v + direction[2] * w + phase)
        return total * np.float32(np.sqrt(2 / _WAVES))


def draw_looks(rng: np.random.Generator, count: int, *, metastasis_share: float) -> list[NodeLook]:
    """The looks of one patient's `count` nodes in random order, `metastasis_share` being this patient's.

    Number of metastases and, within each class, sizes are stratified within the patient: a class's size quantiles are spread
    evenly, so that small cohorts too show the size distributions (and the size-only AUC) that are set here.
    """
    metastases = int(np.floor(metastasis_share * count + rng.random()))
    looks = [_draw(rng, METASTATIC, quantile) for quantile in _spread_quantiles(rng, metastases)]
    looks += [_draw(rng, BENIGN, quantile) for quantile in _spread_quantiles(rng, count - metastases)]
    return [looks[i] for i in rng.permutation(count)]


def patient_share(quantile: float, mean: float, clustering: float) -> float:
    """One patient's share of metastases: beta-distributed, `clustering` being the correlation between two nodes of a patient."""
    if not 0 < mean < 1 or clustering == 0:
        return mean
    strength = 1 / clustering - 1
    return float(betaincinv(mean * strength, (1 - mean) * strength, quantile))


def _spread_quantiles(rng: np.random.Generator, count: int) -> F64:
    return (rng.permutation(count) + rng.random(count)) / max(count, 1)


def _draw(rng: np.random.Generator, traits: Traits, size_quantile: float) -> NodeLook:
    short = float(np.clip(traits.median_short_axis_mm * np.exp(_SIZE_SPREAD * ndtri(size_quantile)), *SHORT_AXIS_MM))
    roundness = float(np.clip(rng.normal(*traits.roundness), 0.4, 0.98))
    middle = rng.uniform(1.0, 0.5 * (1 + 1 / roundness))
    radii = 0.5 * short * np.array([1.0, middle, 1 / roundness])
    directions = rng.normal(size=(_WAVES, 3))
    fatty, necrotic = rng.random() < traits.fatty_hilum, rng.random() < traits.necrosis
    towards = rng.normal(size=3)
    eccentric = (0.25 if fatty else 0.1) * radii * towards / np.linalg.norm(towards)
    return NodeLook(
        metastatic=traits is METASTATIC,
        short_axis_mm=short,
        radii_mm=radii,
        rotation=Rotation.from_quat(rng.normal(size=4)).as_matrix(),
        hu=float(rng.normal(*traits.hu)),
        irregularity=float(np.clip(rng.normal(*traits.irregularity), 0.0, 0.35)),
        softness_mm=float(np.clip(rng.normal(*traits.softness_mm), 0.0, 6.0)),
        heterogeneity_hu=float(np.clip(rng.normal(*traits.heterogeneity_hu), 0.0, 40.0)),
        stranding_hu=float(rng.uniform(*_STRANDING_HU)) if rng.random() < traits.stranding else 0.0,
        core_hu=FATTY_HILUM_HU if fatty else NECROSIS_HU if necrotic else None,
        core_centre_mm=eccentric,
        core_radius_mm=0.5 * short * rng.uniform(0.5, 0.8),
        waves=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        phases=rng.uniform(0, 2 * np.pi, _WAVES),
    )

"""The mediastinum of a phantom: airways, great vessels, heart, oesophagus as tubes and ellipsoids, and its landmarks.

Body frame: mm of a mean adult, origin at the carina, x to left, y to posterior, z to superior. Courses are schematic:
they keep the neighbourhoods by which the IASLC map (Rusch et al., J Thorac Oncol 4(5):568-577, 2009) bounds its stations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtids_dist.dicom.phantom_shapes import F64, Canvas, Ellipsoid, Tube
from mtids_dist.dicom.phantom_trunk import AIR_HU, MUSCLE_HU, Trunk

_LUNG_VESSELS = 36


@dataclass(frozen=True)
class Organ:
    """Shapes of one attenuation; all of them keep nodes away."""

    shapes: tuple[Tube | Ellipsoid, ...]
    hu: float


@dataclass(frozen=True)
class Landmarks:
    """The heights (z, mm) and places of the body frame that bound the stations."""

    arch_top: float
    arch_bottom: float
    left_pa_top: float
    azygos_bottom: float
    innominate_bottom: float
    """Caudal margin of the left brachiocephalic (innominate) vein where it crosses the trachea."""
    ligament_x: float
    """The ligamentum arteriosum between arch and left pulmonary artery: 4L lies medial, 5 lateral of it."""
    arch_front: F64
    """Middle [3] of the arch's anterolateral part, whose outer side is station 6."""
    anterior_y: float
    """Anterior border of the ascending aorta: 3A lies in front of it."""


@dataclass(frozen=True)
class Anatomy:
    """One patient's organs in the body frame, in painting order."""

    trunk: Trunk
    lung_vessels: Organ
    organs: tuple[Organ, ...]
    airways: tuple[Tube, ...]
    trachea: Tube
    oesophagus: Tube
    landmarks: Landmarks

    def clearance(self, positions: F64) -> F64:
        """Signed distance [n] of body positions [n, 3] from the nearest organ or airway."""
        solids = [shape for organ in self.organs for shape in organ.shapes] + [tube.grown(1.5) for tube in self.airways]
        nearest: F64 = np.min([solid.distance(positions) for solid in solids], axis=0)
        return nearest

    def paint(self, canvas: Canvas) -> None:
        """Paint all but the airways' lumen, which `paint_lumen` opens after the nodes are in."""
        self.trunk.paint(canvas)
        for organ in (self.lung_vessels, *self.organs):
            for shape in organ.shapes:
                shape.paint(canvas, organ.hu)
        for tube in self.airways:
            tube.grown(1.5).paint(canvas, MUSCLE_HU)

    def paint_lumen(self, canvas: Canvas) -> None:
        """Open the airways: air inside their walls."""
        for tube in self.airways:
            tube.paint(canvas, AIR_HU)


def draw_anatomy(rng: np.random.Generator, *, contrast_hu: float, shift_mm: float) -> Anatomy:
    """One patient's anatomy: every organ moved by its own normal shift of `shift_mm`, calibres varied by some 7 %."""
    maker = _Maker(rng, shift_mm)
    trachea = maker.tube([(0, -22, 112), (-2, -13, 60), (-3, -6, 25), (0, 0, 0)], 8.8, fixed_end=True)
    airways = (trachea, *_bronchi(maker))
    arch_z = 26.0 + maker.shift()[2]
    aorta_shift, pulmonary_shift = maker.shift(), maker.shift()
    aorta = _aorta(maker, arch_z, aorta_shift)
    pulmonary = _pulmonary_arteries(maker, pulmonary_shift)
    innominate_z = arch_z + 19.0 + abs(maker.shift()[2])
    veins = _veins(maker, innominate_z)
    oesophagus = maker.tube(
        [(5, -4, 112), (6, 3, 60), (7, 11, 20), (7, 16, 0), (5, 20, -30), (4, 22, -70), (9, 19, -110), (16, 14, -160)], 6.5
    )
    arterial = contrast_hu
    venous = contrast_hu * rng.uniform(0.6, 0.9)
    heart = _heart(maker)
    organs = (
        Organ((heart["muscle"],), 85.0),
        Organ((heart["right"], heart["inferior_cava"]), venous),
        Organ((heart["left_ventricle"], heart["left_atrium"], *_pulmonary_veins(maker)), arterial),
        Organ(pulmonary, contrast_hu * rng.uniform(0.8, 1.1)),
        Organ(veins, venous),
        Organ(aorta, arterial),
        Organ((oesophagus,), MUSCLE_HU),
    )
    landmarks = Landmarks(
        arch_top=arch_z + aorta_shift[2] + 13,
        arch_bottom=arch_z + aorta_shift[2] - 13,
        left_pa_top=-10.0 + pulmonary_shift[2] + 10,
        azygos_bottom=12.0 - 4.5,
        innominate_bottom=innominate_z - 6,
        ligament_x=29.0 + 0.5 * (aorta_shift[0] + pulmonary_shift[0]),
        arch_front=np.array([16.0, -20.0, arch_z]) + aorta_shift,
        anterior_y=-62.0 + aorta_shift[1],
    )
    lung_vessels = Organ(_lung_vessels(rng), 30.0)
    return Anatomy(Trunk.draw(rng), lung_vessels, organs, airways, trachea, oesophagus, landmarks)


class _Maker:
    """Draws shifts and calibres, so that each organ's course reads as a list of points."""

    def __init__(self, rng: np.random.Generator, shift_mm: float) -> None:
        self.rng, self.shift_mm = rng, shift_mm

    def shift(self) -> F64:
        moved: F64 = np.clip(self.rng.normal(0, self.shift_mm, 3), -2 * self.shift_mm, 2 * self.shift_mm)
        return moved

    def tube(self, points: npt.ArrayLike, radii: npt.ArrayLike, *, shift: F64 | None = None, fixed_end: bool = False) -> Tube:
        course = np.asarray(points, float)
        moved = self.shift() if shift is None else shift
        share = np.linspace(1, 0, len(course))[:, None] if fixed_end else 1.0
        calibre = np.asarray(radii, float) * self.rng.uniform(0.93, 1.07)
        return Tube.smooth(course + moved * share, calibre)

    def ellipsoid(self, centre: npt.ArrayLike, radii: npt.ArrayLike, shift: F64) -> Ellipsoid:
        return Ellipsoid(np.asarray(centre, float) + shift, np.asarray(radii, float) * self.rng.uniform(0.93, 1.07))


def _bronchi(maker: _Maker) -> tuple[Tube, ...]:
    still = np.zeros(3)
    right = maker.tube(
        [(0, 0, -1), (-18, 4, -14), (-31, 8, -24), (-35, 12, -50), (-45, 24, -82)], [7.5, 7, 6, 5.5, 3.5], shift=still
    )
    right_upper = maker.tube([(-20, 4, -15), (-36, 6, -10), (-56, 6, 2)], [5, 4.5, 3], shift=still)
    left = maker.tube([(0, 0, -1), (24, 7, -18), (44, 13, -33), (48, 22, -72)], [7, 6.5, 5.5, 3.5], shift=still)
    left_upper = maker.tube([(42, 12, -31), (54, 4, -26), (68, -8, -12)], [5, 4.5, 3], shift=still)
    return right, right_upper, left, left_upper


def _aorta(maker: _Maker, arch_z: float, shift: F64) -> tuple[Tube, ...]:
    top = arch_z
    course = [(12, -38, -58), (-8, -46, -35), (-16, -46, 0), (-9, -41, top - 5), (8, -29, top), (24, -10, top), (32, 12, top - 6)]
    course += [(32, 28, top - 26), (29, 34, -40), (17, 37, -110), (8, 36, -170)]
    radii = [15, 16, 16, 14.5, 13, 13, 12.5, 12, 11.5, 11, 11]
    return (
        maker.tube(course, radii, shift=shift),
        maker.tube([(-4, -36, top), (-10, -32, top + 24), (-24, -26, 90)], 6, shift=shift),
        maker.tube([(10, -27, top), (13, -24, top + 24), (20, -24, 92)], 4, shift=shift),
        maker.tube([(23, -10, top), (25, -8, top + 24), (34, -8, 92)], 5, shift=shift),
    )


def _pulmonary_arteries(maker: _Maker, shift: F64) -> tuple[Tube, ...]:
    return (
        maker.tube([(20, -58, -56), (21, -44, -24), (24, -30, -13)], [14, 14, 13], shift=shift),
        maker.tube([(22, -34, -14), (36, -14, -10), (50, 6, -18), (54, 18, -46)], [11.5, 10, 9, 7], shift=shift),
        maker.tube([(18, -32, -19), (-5, -22, -24), (-34, -14, -28), (-50, -8, -42)], [11, 10, 9, 7], shift=shift),
    )


def _veins(maker: _Maker, innominate_z: float) -> tuple[Tube, ...]:
    shift = maker.shift()
    cava_top = innominate_z - 8
    return (
        maker.tube([(-26, -38, cava_top), (-29, -34, 0), (-28, -29, -52)], 9, shift=shift),
        maker.tube([(-26, -38, cava_top), (-40, -34, 78)], 7, shift=shift),
        maker.tube(
            [(-25, -40, cava_top + 2), (0, -50, innominate_z), (20, -50, innominate_z + 8), (44, -40, 78)], 6, shift=shift
        ),
        maker.tube([(-9, 31, -160), (-10, 30, -30), (-14, 27, 4), (-24, 8, 12), (-28, -26, 12)], 4.5, shift=np.zeros(3)),
    )


def _heart(maker: _Maker) -> dict[str, Tube | Ellipsoid]:
    shift = maker.shift()
    return {
        "muscle": maker.ellipsoid((28, -40, -102), (57, 40, 46), shift),
        "left_ventricle": maker.ellipsoid((42, -40, -106), (32, 22, 30), shift),
        "left_atrium": maker.ellipsoid((5, -5, -72), (28, 14, 17), shift),
        "right": maker.ellipsoid((-17, -32, -84), (24, 26, 34), shift),
        "inferior_cava": maker.tube([(-22, -20, -90), (-24, -10, -120), (-22, 0, -170)], 11, shift=shift),
    }


def _pulmonary_veins(maker: _Maker) -> tuple[Tube, ...]:
    courses = (
        [(-18, 0, -70), (-40, 10, -74), (-66, 24, -82)],
        [(26, 2, -68), (46, 10, -72), (70, 24, -82)],
        [(-16, -8, -62), (-40, -16, -48), (-64, -26, -28)],
        [(28, -8, -60), (46, -18, -48), (66, -28, -26)],
    )
    return tuple(maker.tube(course, [6.5, 5.5, 3.5]) for course in courses)


def _lung_vessels(rng: np.random.Generator) -> tuple[Tube, ...]:
    """Straight thin vessels from either hilum outwards, so that the lungs are not empty."""
    side = np.repeat((-1.0, 1.0), _LUNG_VESSELS // 2)
    start = np.stack([48 * side, rng.uniform(-10, 15, side.size), rng.uniform(-50, -10, side.size)], axis=1)
    reach = np.stack(
        [side * rng.uniform(20, 58, side.size), rng.uniform(-48, 48, side.size), rng.uniform(-58, 62, side.size)], axis=1
    )
    return tuple(Tube(np.stack([a, a + 0.5 * b, a + b]), np.array([2.8, 1.8, 0.8])) for a, b in zip(start, reach, strict=True))

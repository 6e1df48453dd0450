"""One synthetic patient: what is drawn from (settings, seed, index), and the Hounsfield values of its scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtids_dist.dicom.phantom_anatomy import Anatomy, draw_anatomy
from mtids_dist.dicom.phantom_nodes import NodeLook, draw_looks, patient_share
from mtids_dist.dicom.phantom_settings import PhantomConfig
from mtids_dist.dicom.phantom_shapes import F32, F64, Canvas
from mtids_dist.dicom.phantom_stations import draw_stations, place
from mtids_dist.dicom.phantom_trunk import AIR_HU

_TOP_MM, _BOTTOM_MM = 102.0, -138.0
_SLAB_VOXELS = 2_000_000
_SHARPEST_EDGE_MM = 1.0
_GOLDEN = (5**0.5 - 1) / 2
_HU_LIMITS = (-1024, 3071)


@dataclass(frozen=True, kw_only=True)
class ScanGrid:
    """The scan's voxel grid along the patient's axes (LPS, mm): centre of the first voxel, and the steps from it."""

    origin_mm: F64
    pixel_mm: float
    slice_mm: float
    matrix: int
    slices: int

    def axis(self, index: int, first: int = 0, last: int | None = None) -> F64:
        """Voxel coordinates along x (0), y (1) or z (2), from `first` to before `last`."""
        step, count = (self.slice_mm, self.slices) if index == 2 else (self.pixel_mm, self.matrix)
        along: F64 = self.origin_mm[index] + step * np.arange(first, count if last is None else last)
        return along


@dataclass(frozen=True, kw_only=True)
class PhantomNode:
    """A node as it truly is (station, look, position) and as the reader writes it down (None: left empty)."""

    node_id: int
    station: str
    look: NodeLook
    position_mm: F64
    """Centre [3], LPS."""
    body_position: F64
    """Centre [3] in the anatomy's body frame."""
    written_short_axis_mm: float
    written_station: str | None
    written_metastasis: int | None


@dataclass(frozen=True, kw_only=True)
class PhantomPatient:
    """Anatomy in the body frame, nodes and scan grid in LPS: position = carina + scale * body position."""

    index: int
    scale: float
    carina_mm: F64
    anatomy: Anatomy
    nodes: tuple[PhantomNode, ...]
    grid: ScanGrid
    prone: bool
    noise_hu: float
    noise_stream: np.random.SeedSequence
    archive_stream: np.random.SeedSequence

    def slabs(self) -> Iterator[npt.NDArray[np.int16]]:
        """HU of the scan, slab by slab [slices, y, x] from the feet upwards, along the patient's axes."""
        rng = np.random.default_rng(self.noise_stream)
        height = max(1, _SLAB_VOXELS // self.grid.matrix**2)
        for first in range(0, self.grid.slices, height):
            values = self._paint(first, min(first + height, self.grid.slices))
            values += np.float32(self.noise_hu) * _noise(rng, values.shape)
            yield np.clip(np.rint(values), *_HU_LIMITS).astype(np.int16)

    def _paint(self, first: int, last: int) -> F32:
        grid, edge = self.grid, max(_SHARPEST_EDGE_MM, self.grid.pixel_mm, 0.7 * self.grid.slice_mm)
        values = np.full((last - first, grid.matrix, grid.matrix), AIR_HU, np.float32)
        axes = [grid.axis(2, first, last), grid.axis(1), grid.axis(0)]
        z, y, x = (axis.astype(np.float32) for axis in axes)
        bz, by, bx = (((a - c) / self.scale).astype(np.float32) for a, c in zip(axes, self.carina_mm[::-1], strict=True))
        body = Canvas(values, bz, by, bx, edge / self.scale)
        self.anatomy.paint(body)
        for node in self.nodes:
            node.look.paint(Canvas(values, z, y, x, edge), node.position_mm)
        self.anatomy.paint_lumen(body)
        return values


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> F32:
    """Unit-variance noise, correlated between neighbours in the slice as a soft kernel leaves it."""
    slices, rows, columns = shape
    white = rng.standard_normal((slices, rows + 1, columns + 1), dtype=np.float32)
    pairs = white[:, 1:] + white[:, :-1]
    noise: F32 = np.float32(0.5) * (pairs[:, :, 1:] + pairs[:, :, :-1])
    return noise


def draw_patient(config: PhantomConfig, index: int) -> PhantomPatient:
    """Patient `index` of the cohort; it does not depend on how many there are."""
    scene, noise, archive = np.random.SeedSequence(config.seed, spawn_key=(index,)).spawn(3)
    rng = np.random.default_rng(scene)
    scale = float(rng.uniform(*config.patient_scale))
    anatomy = draw_anatomy(rng, contrast_hu=float(rng.uniform(*config.contrast_hu)), shift_mm=config.landmark_shift_mm)
    carina = np.round(rng.uniform((-20, -180, -300), (20, -80, 300)), 3)
    return PhantomPatient(
        index=index,
        scale=scale,
        carina_mm=carina,
        anatomy=anatomy,
        nodes=_draw_nodes(rng, config, anatomy, scale, carina, metastasis_share(config, index)),
        grid=_draw_grid(rng, config, scale, carina),
        prone=bool(rng.random() < config.prone_share),
        noise_hu=float(rng.uniform(*config.noise_hu)),
        noise_stream=noise,
        archive_stream=archive,
    )


def metastasis_share(config: PhantomConfig, index: int) -> float:
    """Patient `index`'s share of metastases. Golden-ratio steps spread the patients over the distribution, so that any run of
    them has the mean that is set."""
    start = np.random.default_rng(np.random.SeedSequence(config.seed)).random()
    quantile = float((start + index * _GOLDEN) % 1)
    return patient_share(quantile, config.metastasis_share, config.metastasis_clustering)


def _draw_nodes(
    rng: np.random.Generator, config: PhantomConfig, anatomy: Anatomy, scale: float, carina: F64, share: float
) -> tuple[PhantomNode, ...]:
    count = int(rng.integers(config.nodes[0], config.nodes[1], endpoint=True))
    nodes: list[PhantomNode] = []
    looks = draw_looks(rng, count, metastasis_share=share)
    for node_id, (station, look) in enumerate(
        zip(draw_stations(rng, count, config.station_weights), looks, strict=True), start=1
    ):
        taken = [(node.body_position, node.look.reach_mm / scale) for node in nodes]
        body_position = place(rng, anatomy, station, look.short_axis_mm / 2 / scale, taken)
        misread, lost_station, lost_metastasis = rng.normal(0, config.reader_error_mm), *rng.random(2)
        nodes.append(
            PhantomNode(
                node_id=node_id,
                station=station,
                look=look,
                position_mm=np.round(carina + scale * body_position, 2),
                body_position=body_position,
                written_short_axis_mm=round(max(look.short_axis_mm + misread, 2.0), 1),
                written_station=None if lost_station < config.missing_station else station,
                written_metastasis=None if lost_metastasis < config.missing_metastasis else int(look.metastatic),
            )
        )
    return tuple(nodes)


def _draw_grid(rng: np.random.Generator, config: PhantomConfig, scale: float, carina: F64) -> ScanGrid:
    pixel = round(float(rng.uniform(*config.field_of_view_mm)) / config.matrix, 4)
    spacing = round(float(rng.uniform(*config.slice_spacing_mm)), 2)
    isocentre = carina[:2] + rng.uniform(-8, 8, 2)
    corner = np.round(isocentre - pixel * (config.matrix - 1) / 2, 3)
    bottom = round(float(carina[2] + scale * _BOTTOM_MM), 2)
    slices = int(np.ceil(scale * (_TOP_MM - _BOTTOM_MM) / spacing))
    return ScanGrid(origin_mm=np.array([*corner, bottom]), pixel_mm=pixel, slice_mm=spacing, matrix=config.matrix, slices=slices)

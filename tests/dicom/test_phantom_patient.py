"""One synthetic patient: Hounsfield calibration, nodes where the table says, the IASLC borders, what size alone tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from mtids_dist.dicom import read_nodes, read_series
from mtids_dist.dicom.phantom import make_phantom
from mtids_dist.dicom.phantom_anatomy import Anatomy
from mtids_dist.dicom.phantom_nodes import draw_looks
from mtids_dist.dicom.phantom_patient import PhantomNode, PhantomPatient, draw_patient, metastasis_share
from mtids_dist.dicom.phantom_settings import PhantomConfig
from mtids_dist.dicom.phantom_trunk import mediastinal_margin
from mtids_dist.stations import MEDIASTINAL

DEMO = PhantomConfig(matrix=160, field_of_view_mm=(320, 340), slice_spacing_mm=(3.0, 3.6))
DRAWN = 60


@cache
def drawn() -> tuple[PhantomPatient, ...]:
    return tuple(draw_patient(DEMO, index) for index in range(DRAWN))


@cache
def volume(index: int) -> npt.NDArray[np.int16]:
    return np.concatenate(list(drawn()[index].slabs()))


def hu_near(patient: PhantomPatient, body: tuple[float, float, float], radius_mm: float) -> npt.NDArray[np.int16]:
    return hu_around(patient, patient.carina_mm + patient.scale * np.array(body), radius_mm)


def hu_around(patient: PhantomPatient, centre_mm: npt.NDArray[np.float64], radius_mm: float) -> npt.NDArray[np.int16]:
    x, y, z = (patient.grid.axis(axis) - centre_mm[axis] for axis in range(3))
    ball = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2 <= radius_mm**2
    return volume(patient.index)[ball]


def oesophagus_hu(patient: PhantomPatient) -> npt.NDArray[np.int16]:
    """The middle of the oesophagus, where no node comes near."""
    course = patient.anatomy.oesophagus.at(np.linspace(-40, 60, 21))
    nodes = np.stack([node.body_position for node in patient.nodes])
    away = np.linalg.norm(course[:, None] - nodes, axis=-1).min(axis=1)
    return np.concatenate([hu_near(patient, tuple(centre), 3.5) for centre in course[away > 22]])


@pytest.mark.parametrize("index", range(3))
def test_tissues_have_their_hounsfield_values(index: int) -> None:
    patient = drawn()[index]
    trachea = tuple(patient.anatomy.trachea.at(60.0))
    assert hu_near(patient, trachea, 4).mean() < -950
    assert np.median(hu_near(patient, (80, -30, 30), 12)) == pytest.approx(-850, abs=15)
    assert np.median(hu_near(patient, (-75, 30, 10), 12)) == pytest.approx(-850, abs=15)
    assert oesophagus_hu(patient).mean() == pytest.approx(45, abs=8)
    aorta = hu_near(patient, (-14, -46, -5), 5)
    assert DEMO.contrast_hu[0] - 15 < aorta.mean() < DEMO.contrast_hu[1] + 15
    assert volume(index).min() >= -1024
    fat = volume(index)[(volume(index) > -160) & (volume(index) < -40)]
    assert np.median(fat) == pytest.approx(-100, abs=10)


def test_nodes_lie_where_the_table_says() -> None:
    """The middle of a node without a core has the node's own attenuation, a core its own; 15 mm beyond lies something else."""
    checked = 0
    for patient in drawn()[:6]:
        for node in patient.nodes:
            look = node.look
            if look.core_hu is None and look.short_axis_mm > 9 and look.softness_mm < 3 and alone(patient, node):
                middle = hu_around(patient, node.position_mm, 2.5).mean()
                assert middle == pytest.approx(look.hu, abs=40), (patient.index, node.station)
                checked += 1
    assert checked >= 5


def alone(patient: PhantomPatient, node: PhantomNode) -> bool:
    reach = [
        np.linalg.norm(other.position_mm - node.position_mm) - other.look.reach_mm for other in patient.nodes if other is not node
    ]
    return min(reach) > 3


@pytest.mark.slow
def test_written_series_show_the_drawn_volume_at_the_written_nodes(tmp_path: Path) -> None:
    """Supine and prone, signed and unsigned: what the reader gives at a node's position is what was drawn there."""
    config = DEMO.model_copy(update={"patients": 6, "matrix": 96, "prone_share": 0.5})
    table = read_nodes(make_phantom(tmp_path / "out", config=config))
    series = {one.patient_id: one for one in read_series(tmp_path / "out" / "dicom")}
    assert len(series) == 6
    patients = [draw_patient(config, index) for index in range(6)]
    assert {patient.prone for patient in patients} == {True, False}
    assert len(table.nodes) == sum(len(patient.nodes) for patient in patients)
    for patient in patients:
        one = series[f"PHANTOM-0-{patient.index:04d}"]
        expected = np.concatenate(list(patient.slabs()))
        hu = one.read_hu(0, one.shape[0])
        for node in patient.nodes:
            drawn_at = [
                round((p - o) / s) for p, o, s in zip(node.position_mm, patient.grid.origin_mm, steps(patient), strict=True)
            ]
            read_at = np.rint(one.index_of(node.position_mm)).astype(int)
            assert hu[tuple(read_at)] == expected[drawn_at[2], drawn_at[1], drawn_at[0]]


def steps(patient: PhantomPatient) -> tuple[float, float, float]:
    return patient.grid.pixel_mm, patient.grid.pixel_mm, patient.grid.slice_mm


RULES: dict[str, Callable[[Anatomy, npt.NDArray[np.float64]], bool]] = {
    "2R": lambda a, p: left_of_trachea(a, p) < 9.5 and p[2] > a.landmarks.innominate_bottom,
    "4R": lambda a, p: left_of_trachea(a, p) < 9.5 and a.landmarks.azygos_bottom < p[2] < a.landmarks.innominate_bottom,
    "2L": lambda a, p: left_of_trachea(a, p) > 9.5 and p[2] > a.landmarks.arch_top,
    "4L": lambda a, p: left_of_trachea(a, p) > 9.5 and p[0] < a.landmarks.ligament_x and p[2] < a.landmarks.arch_top,
    "5": lambda a, p: p[0] > a.landmarks.ligament_x and a.landmarks.left_pa_top < p[2] < a.landmarks.arch_bottom,
    "6": lambda a, p: p[1] < -10 and abs(p[2] - a.landmarks.arch_front[2]) <= 13,
    "3A": lambda a, p: p[1] < a.landmarks.anterior_y and p[2] > 0,
    "3P": lambda a, p: p[1] > a.trachea.at(p[2])[1] + 9 and p[2] > 0,
    "7": lambda a, p: -50 < p[2] < 0 and abs(p[0]) < 15,
    "8": lambda a, p: p[2] < -50 and np.linalg.norm(p - a.oesophagus.at(p[2])) < 18,
    "9": lambda a, p: p[2] < -80 and abs(p[0]) > 17 and p[1] > 0,
}


def left_of_trachea(anatomy: Anatomy, position: npt.NDArray[np.float64]) -> float:
    """mm to the left of the trachea's midline."""
    return float(position[0] - anatomy.trachea.at(position[2])[0])


@pytest.mark.parametrize("station", MEDIASTINAL)
def test_nodes_keep_to_their_stations_borders(station: str) -> None:
    nodes = [(patient, node) for patient in drawn() for node in patient.nodes if node.station == station]
    assert len(nodes) >= DRAWN // 6
    for patient, node in nodes:
        assert RULES[station](patient.anatomy, node.body_position), (patient.index, node.body_position)


def test_nodes_centres_are_free_of_organs() -> None:
    inside = [
        patient.anatomy.clearance(np.stack([node.body_position for node in patient.nodes])).min() < 0 for patient in drawn()
    ]
    assert np.mean(inside) < 0.05


def test_nodes_stay_in_the_mediastinum() -> None:
    """A node's centre may bulge the pleura by some mm, but does not lie out in the lung."""
    x, y, z = np.stack([node.body_position for patient in drawn() for node in patient.nodes]).T
    margin = np.where(x > 0, mediastinal_margin(1.0, y, z), mediastinal_margin(-1.0, y, z))
    assert np.mean(np.abs(x) > margin + 4) < 0.02


def test_right_stations_lie_right_of_left_ones_in_patient_coordinates() -> None:
    """LPS: x grows to the patient's left."""
    for right, left in (("2R", "2L"), ("4R", "4L")):
        x = {
            side: [n.position_mm[0] - p.carina_mm[0] for p in drawn() for n in p.nodes if n.station == side]
            for side in (right, left)
        }
        assert np.mean(x[right]) + 20 < np.mean(x[left])


def size_auc(nodes: list[tuple[float, bool]]) -> float:
    sizes, metastatic = zip(*nodes, strict=True)
    return float(roc_auc_score(metastatic, sizes))


@pytest.mark.parametrize("seed", range(20))
def test_size_alone_tells_little(seed: int) -> None:
    """Looks only, no placing: 80 patients' table and each third of it, as a reader with the default error would write it."""
    rng = np.random.default_rng(seed)
    config = DEMO.model_copy(update={"seed": seed})
    thirds = [
        [
            (look.short_axis_mm + rng.normal(0, DEMO.reader_error_mm), look.metastatic)
            for index in range(27 * part, 27 * part + 27)
            for look in draw_looks(rng, 7, metastasis_share=metastasis_share(config, index))
        ]
        for part in range(3)
    ]
    together = list(chain(*thirds))
    assert 0.61 <= size_auc(together) <= 0.69, f"seed {seed}"
    assert max(size_auc(third) for third in thirds) <= 0.72, f"seed {seed}"
    assert np.mean([metastatic for _, metastatic in together]) == pytest.approx(0.4, abs=0.03), f"seed {seed}"


def test_the_written_short_axis_is_the_true_one_with_a_small_error() -> None:
    nodes = [node for patient in drawn() for node in patient.nodes]
    errors = np.array([node.written_short_axis_mm - node.look.short_axis_mm for node in nodes])
    assert abs(errors.mean()) < 0.1
    assert errors.std() == pytest.approx(DEMO.reader_error_mm, rel=0.2)
    assert 0.6 <= size_auc([(node.written_short_axis_mm, node.look.metastatic) for node in nodes]) <= 0.7


def test_metastasis_does_not_depend_on_the_station() -> None:
    nodes = [node for patient in drawn() for node in patient.nodes]
    for station in MEDIASTINAL:
        share = np.mean([node.look.metastatic for node in nodes if node.station == station])
        assert 0.15 < share < 0.7, station


@pytest.mark.parametrize(
    "wrong", [{"nodes": (5, 2)}, {"station_weights": {"10R": 1.0}}, {"station_weights": {"7": 0.0}}, {"noise": 3}, {"matrix": 8}]
)
def test_settings_refuse_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PhantomConfig.model_validate(wrong)


def test_stations_follow_their_weights() -> None:
    config = DEMO.model_copy(update={"station_weights": {"7": 1.0, "5": 1.0}, "nodes": (4, 4)})
    assert sorted(node.station for node in draw_patient(config, 0).nodes) == ["5", "5", "7", "7"]

from __future__ import annotations

import pytest
import torch

from mtids_dist.data import AugmentConfig
from mtids_dist.data.augment import augment

ALL = AugmentConfig(
    shift_voxels=2,
    rotate90=True,
    flip=("x", "y", "z"),
    rotation_degrees=10,
    scale=0.1,
    intensity_scale=0.1,
    intensity_shift=0.1,
    noise=0.05,
)
SHAPES = [(1, 8, 8), (2, 9, 9), (3, 16, 16), (12, 12, 12), (8, 10, 14)]


def _crops(shape: tuple[int, int, int], count: int = 6) -> torch.Tensor:
    return torch.rand((count, 1, *shape), generator=torch.Generator().manual_seed(1)) * 2 - 1


def _run(crops: torch.Tensor, config: AugmentConfig, seed: int = 0) -> torch.Tensor:
    return augment(crops, config, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_off_changes_nothing(shape: tuple[int, int, int]) -> None:
    crops = _crops(shape)
    assert torch.equal(_run(crops, AugmentConfig()), crops)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_seed_fixes_every_draw_and_the_input_stays(shape: tuple[int, int, int]) -> None:
    crops = _crops(shape)
    before = crops.clone()
    first = _run(crops, ALL)
    assert first.shape == crops.shape
    assert first.dtype == torch.float32
    assert torch.equal(first, _run(crops, ALL))
    assert not torch.equal(first, _run(crops, ALL, seed=1))
    assert torch.equal(crops, before)


@pytest.mark.parametrize(
    "name", ["shift_voxels", "rotate90", "rotation_degrees", "scale", "intensity_scale", "intensity_shift", "noise"]
)
def test_each_crop_gets_its_own_draw(name: str) -> None:
    crops = _crops((12, 12, 12), count=1).repeat(12, 1, 1, 1, 1)
    got = _run(crops, AugmentConfig(**{name: getattr(ALL, name)}))
    assert len({tuple(crop.ravel()[:200].tolist()) for crop in got}) > 2


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 8, 8), (4, 6, 9)])
def test_quarter_turns_permute_the_voxels_of_each_slice(shape: tuple[int, int, int]) -> None:
    crops = _crops(shape, count=40)
    got = _run(crops, AugmentConfig(rotate90=True))
    assert torch.equal(got.flatten(3).sort().values, crops.flatten(3).sort().values)
    turns = range(4) if shape[1] == shape[2] else (0, 2)
    turned = [torch.rot90(crops, k, dims=(-2, -1)) for k in turns]
    found = [[torch.equal(got[i], by[i]) for by in turned] for i in range(len(crops))]
    assert all(sum(row) == 1 for row in found)
    assert all(any(column) for column in zip(*found, strict=True))


@pytest.mark.parametrize(("axis", "dim"), [("x", 4), ("y", 3), ("z", 2)])
def test_flips_mirror_the_named_axis_of_about_half_the_crops(axis: str, dim: int) -> None:
    crops = _crops((3, 5, 6), count=40)
    got = _run(crops, AugmentConfig.model_validate({"flip": (axis,)}))
    mirrored = [torch.equal(new, old.flip(dim - 1)) for new, old in zip(got, crops, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(got, crops, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 10 < sum(mirrored) < 30


def test_a_shift_moves_whole_voxels_and_lets_the_low_value_in() -> None:
    crops = torch.full((200, 1, 3, 12, 16), -1.0)
    crops[:, 0, 1, 6, 8] = 1.0
    got = _run(crops, AugmentConfig(shift_voxels=9))
    assert set(got.unique().tolist()) == {-1.0, 1.0}
    z, y, x = (got == 1).nonzero()[:, 2:].T
    assert len(z) == len(crops)
    assert (z == 1).all()
    assert set((y - 6).tolist()) == set(range(-3, 4))
    assert set((x - 8).tolist()) == set(range(-4, 5))


def test_a_rotation_keeps_lengths_where_axes_differ_in_length() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(40.0), indexing="ij")
    round_spot = 2 * torch.exp(-((y - 9.5) ** 2 + (x - 19.5) ** 2) / 18) - 1
    crops = round_spot.view(1, 1, 1, 20, 40).repeat(8, 1, 1, 1, 1)
    got = _run(crops, AugmentConfig(rotation_degrees=180))
    assert (got - crops).abs().max() < 0.05


def test_a_rotation_by_a_known_angle_turns_a_point_by_it() -> None:
    crops = torch.full((64, 1, 1, 33, 33), -1.0)
    crops[:, 0, 0, 16, 26:29] = 1.0
    got = _run(crops, AugmentConfig(rotation_degrees=90)) + 1
    grid = torch.arange(33.0) - 16
    weight = got.sum(dim=(1, 2, 3, 4))
    x = (got.sum(dim=(1, 2, 3)) * grid).sum(dim=1) / weight
    y = (got.sum(dim=(1, 2, 4)) * grid).sum(dim=1) / weight
    torch.testing.assert_close((x**2 + y**2).sqrt(), torch.full((64,), 11.0), atol=0.2, rtol=0)
    angles = torch.rad2deg(torch.atan2(y, x))
    assert -91 < angles.min() < -60
    assert 60 < angles.max() < 91


def test_scale_magnifies_by_no_more_than_asked() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(24.0) - 11.5] * 3, indexing="ij")
    ball = ((z**2 + y**2 + x**2) < 36).float() * 2 - 1
    got = _run(ball.view(1, 1, 24, 24, 24).repeat(60, 1, 1, 1, 1), AugmentConfig(scale=0.2))
    volume = (got + 1).sum(dim=(1, 2, 3, 4)) / (ball + 1).sum()
    assert 0.8**3 - 0.03 < volume.min() < 0.7
    assert 1.4 < volume.max() < 1.2**3 + 0.03


def test_thin_crops_keep_their_slices_apart() -> None:
    crops = torch.full((16, 1, 3, 16, 16), -1.0)
    crops[:, :, 1] = _crops((1, 16, 16), count=1)[0]
    got = _run(crops, AugmentConfig(rotation_degrees=30, scale=0.2))
    assert (got[:, :, [0, 2]] == -1).all()


def test_noise_and_intensity_have_the_asked_size() -> None:
    crops = torch.zeros(50, 1, 10, 10, 10)
    assert _run(crops, AugmentConfig(noise=0.2)).std().item() == pytest.approx(0.2, rel=0.02)
    shifted = _run(crops, AugmentConfig(intensity_shift=0.3))[:, 0, 0, 0, 0]
    assert 0.2 < shifted.abs().max() <= 0.3
    scaled = _run(crops + 1, AugmentConfig(intensity_scale=0.3))[:, 0, 0, 0, 0]
    assert 0.7 <= scaled.min() < 0.8
    assert 1.2 < scaled.max() <= 1.3

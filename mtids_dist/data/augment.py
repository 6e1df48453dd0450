"""Random changes to a batch of normalised crops: every draw comes from one seeded generator, every crop gets its own."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from mtids_dist.data.batch import LOW
from mtids_dist.data.config import AugmentConfig

_DIM = {"z": 2, "y": 3, "x": 4}
_THIN = 3
"""Crops of up to so many slices are a stack of pictures: nothing is interpolated between their slices."""


def augment(crops: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """Augmented copies of crops float32 [B, 1, D, H, W], by the settings of `config`; the same seed gives the same crops."""
    if config.rotate90:
        crops = _rotate90(crops, generator)
    for axis in config.flip:
        crops = _flip(crops, _DIM[axis], generator)
    if config.rotation_degrees or config.scale:
        crops = _affine(crops, config.rotation_degrees, config.scale, generator)
    if config.shift_voxels:
        crops = _shift(crops, config.shift_voxels, generator)
    if config.intensity_scale or config.intensity_shift:
        factor = 1 + config.intensity_scale * _symmetric(len(crops), generator)
        crops = crops * _per_crop(factor) + _per_crop(config.intensity_shift * _symmetric(len(crops), generator))
    if config.noise:
        crops = crops + config.noise * torch.randn(crops.shape, generator=generator)
    return crops


def _symmetric(count: int, generator: torch.Generator) -> torch.Tensor:
    return 2 * torch.rand(count, generator=generator) - 1


def _per_crop(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1, 1)


def _rotate90(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    square = crops.shape[-1] == crops.shape[-2]
    turns = (
        torch.randint(4, (len(crops),), generator=generator)
        if square
        else 2 * torch.randint(2, (len(crops),), generator=generator)
    )
    turned = crops.clone()
    for quarter_turns in range(1, 4):
        chosen = turns == quarter_turns
        turned[chosen] = torch.rot90(crops[chosen], quarter_turns, dims=(-2, -1)) if chosen.any() else turned[chosen]
    return turned


def _flip(crops: torch.Tensor, dim: int, generator: torch.Generator) -> torch.Tensor:
    chosen = torch.rand(len(crops), generator=generator) < 0.5
    return torch.where(_per_crop(chosen), crops.flip(dim), crops)


def _shift(crops: torch.Tensor, voxels: int, generator: torch.Generator) -> torch.Tensor:
    sizes = crops.shape[2:]
    limits = [min(voxels, size // 4) for size in sizes]
    padded = F.pad(crops, [limit for limit in reversed(limits) for _ in range(2)], value=LOW)
    starts = [torch.randint(2 * limit + 1, (len(crops), 1), generator=generator) for limit in limits]
    z, y, x = (start + torch.arange(size) for start, size in zip(starts, sizes, strict=True))
    rows = torch.arange(len(crops)).view(-1, 1, 1, 1)
    return padded[rows, 0, z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]].unsqueeze(1)


def _affine(crops: torch.Tensor, degrees: float, scale: float, generator: torch.Generator) -> torch.Tensor:
    count, thin = len(crops), crops.shape[2] <= _THIN
    angles = torch.deg2rad(degrees * torch.stack([_symmetric(count, generator) for _ in range(3)], dim=1))
    magnification = (1 + scale * _symmetric(count, generator)).view(-1, 1).repeat(1, 3)
    if thin:
        angles[:, :2] = 0
        magnification[:, 2] = 1
    matrix = _rotation(angles) / magnification[:, None, :]
    # affine_grid counts in halves of each axis' length, so that a rotation of voxels has to be rescaled between axes
    half = torch.tensor([crops.shape[4], crops.shape[3], crops.shape[2]], dtype=torch.float32) / 2
    matrix = matrix * half[None, None, :] / half[None, :, None]
    grid = F.affine_grid(F.pad(matrix, (0, 1)), list(crops.shape), align_corners=False)
    return F.grid_sample(crops - LOW, grid, align_corners=False) + LOW


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """Rotations [B, 3, 3] of x, y, z by angles [B, 3] in radians about x, then y, then z."""
    total = torch.eye(3).repeat(len(angles), 1, 1)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3).repeat(len(angles), 1, 1)
        turn[:, i, i] = turn[:, j, j] = angles[:, axis].cos()
        turn[:, j, i] = angles[:, axis].sin()
        turn[:, i, j] = -turn[:, j, i]
        total = turn @ total
    return total

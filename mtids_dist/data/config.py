"""Settings of the data room: which store, how batches are made of it, and how crops are augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from mtids_dist.settings import Settings

Axis = Literal["x", "y", "z"]


class AugmentConfig(Settings):
    """Random changes to training crops, each drawn anew per crop. Everything is off by default."""

    shift_voxels: NonNegativeInt = 0
    """translation by up to so many whole voxels along each axis, but no more than a quarter of its length; what enters has the
    window's low value"""
    rotate90: bool = False
    """rotation in the x-y plane by 0, 90, 180 or 270 degrees (0 or 180 where the plane is not square); wrong for stations"""
    flip: tuple[Axis, ...] = ()
    """axes along which a crop is mirrored with probability 1/2: x left-right, y front-back, z up-down; a left-right flip is
    wrong for stations (4R becomes 4L)"""
    rotation_degrees: float = Field(0.0, ge=0.0, le=180.0)
    """rotation by up to so many degrees about each axis, trilinear; crops of up to 3 slices turn about z only"""
    scale: float = Field(0.0, ge=0.0, lt=1.0)
    """magnification by a factor from 1 - scale to 1 + scale, trilinear; crops of up to 3 slices in the x-y plane only"""
    intensity_scale: float = Field(0.0, ge=0.0, lt=1.0)
    """normalised values times a factor from 1 - intensity_scale to 1 + intensity_scale"""
    intensity_shift: NonNegativeFloat = 0.0
    """normalised values plus a number from -intensity_shift to intensity_shift"""
    noise: NonNegativeFloat = 0.0
    """standard deviation of normal noise added to every normalised value"""


class DataConfig(Settings):
    """Which store, which fold is held out, and how training batches are made."""

    store: Path | None = None
    """folder of the store; none: the phantom cohort"""
    fold: NonNegativeInt = 0
    """the fold held out for validation"""
    crop: PositiveInt | tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """the crop size the store has to have, in voxels (one number, or z, y, x); none: whatever it has"""
    batch_size: PositiveInt = 16
    """crops in a batch of one worker"""
    window: tuple[float, float] = (-200.0, 300.0)
    """stored values (Hounsfield units) that become -1 and 1; what lies outside is clipped"""
    augment: AugmentConfig = AugmentConfig()
    shuffle_rows: PositiveInt = 512
    """rows a worker holds to shuffle within, beside the shuffled order of files"""
    prefetch_batches: PositiveInt = 2
    """batches that a worker makes ahead of training"""

    @model_validator(mode="after")
    def _window_rises(self) -> DataConfig:
        if not self.window[0] < self.window[1]:
            raise ValueError(f"window must rise from low to high, found {self.window[0]:g}, {self.window[1]:g}")
        return self

    @property
    def crop_shape(self) -> tuple[int, int, int] | None:
        """The wanted crop shape as z, y, x; None where any will do."""
        return (self.crop,) * 3 if isinstance(self.crop, int) else self.crop

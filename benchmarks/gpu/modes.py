"""The ways in which configs/mtids.yaml is trained, each as settings laid over the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mtids_dist.train import TrainJob

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "mtids.yaml"
FOR_EVER = 1 << 30
Settings = Mapping[str, Any]

PLAIN: Settings = {"balance.method": "none", "balance.options": {}}
FP32: Settings = {"train.scale.precision": "fp32"}
MODES: Mapping[str, Settings] = {
    "as shipped": {},
    "plain": PLAIN,
    "representation": {"balance.gramian": "representation"},
    "every n, in between": {"balance.every": FOR_EVER},  # the first step finds weights, all that are timed only apply them
    "ZeRO 1": {"train.scale.zero_stage": 1},
    "ZeRO 3": {"train.scale.zero_stage": 3},
    "fp32": FP32,
    "fp32, plain": {**FP32, **PLAIN},
    "fp32, ZeRO 0": {**FP32, "train.scale.zero_stage": 0},  # in bf16 stage 0 runs as stage 1
}
"""By name: what differs from the file, which is bf16, ZeRO 2 and DD-GB with the exact Gramian."""


def job_of(mode: str, batch_size: int) -> TrainJob:
    """Return what one rank trains in a mode.

    The file is read by the training room's own settings: those of a whole run would also ask for what reads DICOM.
    """
    whole = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    tree = {name: whole[name] for name in TrainJob.model_fields if name in whole}
    for key, value in {**MODES[mode], "train.scale.workers": 1, "data.batch_size": batch_size}.items():
        lay_over(tree, key.split("."), value)
    return TrainJob.model_validate(tree)


def lay_over(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Set one setting in a tree of settings."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value

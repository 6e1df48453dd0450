"""The training part of a run description."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from mtids_dist.settings import Settings


class Optimizer(str, Enum):
    """Optimizers that DeepSpeed builds by name."""

    ADAMW = "adamw"
    ADAM = "adam"
    SGD = "sgd"


class Schedule(str, Enum):
    """What the learning rate does after its warm-up."""

    COSINE = "cosine"
    CONSTANT = "constant"


class Precision(str, Enum):
    """What parameters and activations are kept in; master weights are fp32 in both."""

    FP32 = "fp32"
    BF16 = "bf16"


class Imbalance(str, Enum):
    """What is done about rare classes."""

    NONE = "none"
    CLASS_WEIGHTS = "class_weights"
    LOGIT_ADJUSTMENT = "logit_adjustment"


class Selection(str, Enum):
    """Which weights become `model.safetensors`."""

    LAST = "last"
    BEST = "best"


class OptimizerConfig(Settings):
    """The optimizer and its learning rate."""

    name: Optimizer = Optimizer.ADAMW
    """adamw | adam | sgd"""
    learning_rate: PositiveFloat = 1e-3
    """The rate after warm-up."""
    weight_decay: NonNegativeFloat = 1e-2
    """AdamW's decoupled decay; the others' L2 penalty."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Only SGD has it."""
    schedule: Schedule = Schedule.COSINE
    """cosine falls to 0 at the last step."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of all steps in which the rate rises linearly."""
    gradient_clipping: NonNegativeFloat = 0.0
    """Largest norm of the balanced gradient over all parameters; 0 is off."""


class LossConfig(Settings):
    """How a task's cross-entropy treats its classes."""

    imbalance: Imbalance = Imbalance.NONE
    """none | class_weights (inverse frequency, mean 1) | logit_adjustment (logits + strength x log prior while training;
    Menon et al., ICLR 2021)"""
    strength: PositiveFloat = 1.0
    """Exponent on the frequencies: 1 is the full correction, 0.5 its square root."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the label spread over all classes."""


class ScaleConfig(Settings):
    """Workers and what each of them gets."""

    workers: PositiveInt = 1
    """Ranks; the batch size is each rank's own."""
    gpus_per_worker: float | None = Field(None, ge=0)
    """None: one GPU each where the cluster has GPUs, else none."""
    cpus_per_worker: PositiveFloat | None = None
    """None: what the cluster has, less one left to read data."""
    zero_stage: int = Field(0, ge=0, le=3)
    """DeepSpeed's ZeRO stage; in bf16 stage 0 runs as stage 1, the first that keeps fp32 master weights."""
    micro_batches: PositiveInt = 1
    """Parts that a rank's batch is taken in, one after the other: less memory, the same step; the batch size is a multiple."""
    precision: Precision = Precision.FP32
    """fp32 | bf16"""
    deepspeed: Mapping[str, Any] = Field(default_factory=dict)
    """Further DeepSpeed settings, merged into what the run description makes; DeepSpeed checks them."""

    @property
    def running_stage(self) -> int:
        """The ZeRO stage that DeepSpeed is given: at 0 it would round each update of bf16 weights to bf16, and lose most."""
        return max(self.zero_stage, 1) if self.precision is Precision.BF16 else self.zero_stage

    @field_validator("deepspeed")
    @classmethod
    def _tasks_have_gradients(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in ("fp16", "amp", "torch_autocast"):
            if isinstance(settings.get(name), Mapping) and settings[name].get("enabled"):
                raise ValueError(f"{name} can't be enabled: its loss scale is not there for the tasks' own gradients; use bf16")
        return settings

    @field_validator("deepspeed")
    @classmethod
    def _said_once(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        for section in _SECTIONS:
            if section in settings and not isinstance(settings[section], Mapping):
                raise ValueError(f"{section} is a section, of settings by name, found {settings[section]!r}")
        for path, own in _OWN_SETTINGS.items():
            found: Any = settings
            for part in path.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found is not None:
                raise ValueError(f"{path} has a setting of its own, {own}, found {found!r}")
        return settings


_SECTIONS = ("zero_optimization", "bf16", "fp16", "amp", "torch_autocast", "activation_checkpointing")
_OWN_SETTINGS = {
    "train_batch_size": "data.batch_size",
    "train_micro_batch_size_per_gpu": "data.batch_size",
    "gradient_accumulation_steps": "train.scale.micro_batches",
    "gradient_clipping": "train.optimizer.gradient_clipping",
    "zero_optimization.stage": "train.scale.zero_stage",
    "bf16.enabled": "train.scale.precision",
    "optimizer": "train.optimizer",
    "scheduler": "train.optimizer.schedule",
}
"""DeepSpeed's name -> the run description's: said twice, one of them would be ignored."""


class TrainConfig(Settings):
    """One training run."""

    epochs: PositiveInt = 30
    """Passes over the training folds."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer and its learning rate."""
    loss: LossConfig = LossConfig()
    """How a task's cross-entropy treats its classes."""
    scale: ScaleConfig = ScaleConfig()
    """Workers and what each of them gets."""
    validate_every: PositiveInt = 1
    """Epochs between validations; the last epoch always has one."""
    checkpoint_every: PositiveInt = 1
    """Epochs between checkpoints; the last epoch always has one."""
    keep_checkpoints: PositiveInt = 2
    """How many checkpoints stay on disk."""
    select: Selection = Selection.LAST
    """last | best (lowest validation loss, each task's divided by log of its classes)"""
    log_every: PositiveInt = 1
    """Steps between lines in metrics.jsonl."""
    max_failures: int = Field(3, ge=0)
    """How often lost workers are replaced before the run gives up; each time it goes on from the last checkpoint."""
    init_from: Path | None = None
    """Weights that the trunk starts from: an own model.safetensors, or published 3-D ResNet weights."""

"""What a rank needs to know of a run: the rooms' own settings, and the folder that the run lives in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from mtids_dist.balance import BalanceConfig
from mtids_dist.data import DataConfig
from mtids_dist.model import ModelConfig
from mtids_dist.settings import Settings
from mtids_dist.tasks import MTIDS_TASKS, Task
from mtids_dist.train.config import TrainConfig

CHECKPOINTS = "checkpoints"


class TrainJob(Settings):
    """Everything that decides what is learned."""

    seed: int = Field(0, ge=0)
    """Of weights, order, augmentation and dropout."""
    tasks: Mapping[str, Task] = Field(default_factory=lambda: dict(MTIDS_TASKS), min_length=1)
    """Name -> column(s), classes and loss weight."""
    data: DataConfig = DataConfig()
    """The store, the held-out fold, batches and augmentation."""
    model: ModelConfig = ModelConfig()
    """Trunk, experts and gates."""
    balance: BalanceConfig = BalanceConfig()
    """How the tasks' gradients are balanced."""
    train: TrainConfig = TrainConfig()
    """Optimizer, losses, scale, checkpoints."""

    @model_validator(mode="after")
    def _experts_belong_to_tasks(self) -> TrainJob:
        experts = self.model.task_experts
        if isinstance(experts, Mapping) and set(experts) != set(self.tasks):
            raise ValueError(f"model.task_experts must name the tasks {', '.join(self.tasks)}, found {', '.join(experts)}")
        self.model.experts_of(self.num_classes)
        return self

    @model_validator(mode="after")
    def _method_fits_the_tasks(self) -> TrainJob:
        try:
            self.balance.check_tasks(len(self.tasks))
        except ValueError as error:
            raise ValueError(f"balance.method {self.balance.method!r} can't balance {len(self.tasks)} tasks: {error}") from error
        return self

    @model_validator(mode="after")
    def _batches_can_be_cut(self) -> TrainJob:
        if self.data.batch_size % self.train.scale.micro_batches:
            raise ValueError(
                f"data.batch_size must be a multiple of train.scale.micro_batches, {self.train.scale.micro_batches}, "
                f"found {self.data.batch_size}"
            )
        return self

    @property
    def num_classes(self) -> dict[str, int]:
        """Task name -> classes of its head."""
        return {name: task.num_classes for name, task in self.tasks.items()}


class Leg(Settings):
    """The part of a run that one call trains."""

    until: PositiveInt
    """The epoch that it ends with."""
    start: Path | None = None
    """Folder of the portable state that it begins with, where the run has no checkpoint of its own; none: from nothing."""
    validate_first: bool = False
    """Whether what it begins with is validated before it is trained."""
    hands_over: bool = False
    """Whether it only leaves a portable state in the run folder for a leg after it; else it leaves checkpoints and weights."""


class RunFolder:
    """Where everything of one run lies. One run = one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """What the run is called: its folder's own name."""
        return self.path.resolve().name

    @property
    def description(self) -> Path:
        """The resolved run description."""
        return self.path / "run.yaml"

    @property
    def versions(self) -> Path:
        """What it ran with."""
        return self.path / "versions.json"

    @property
    def metrics(self) -> Path:
        """JSON lines: steps, validations, events."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Ray Train's folder of checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def start(self) -> Path:
        """A portable state that the run begins with, if somebody put one there."""
        return self.path / "start"

    @property
    def state(self) -> Path:
        """The portable state that a leg hands over."""
        return self.path / "state"

    @property
    def weights(self) -> Path:
        """The trained model, written when training has finished."""
        return self.path / "model.safetensors"

    @property
    def best_weights(self) -> Path:
        """The best weights so far, while `select: best` trains."""
        return self.path / "best.safetensors"

    @property
    def stop_flag(self) -> Path:
        """A file that asks the run to write a checkpoint and leave."""
        return self.path / "STOP"

    @property
    def logs(self) -> Path:
        """What Ray, DeepSpeed and the workers say."""
        return self.path / "logs"

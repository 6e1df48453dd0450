"""The model's settings: they validate themselves, build the model and tell its size before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeVar

from torch import nn

from mtids_dist.model.blocks import CHANNELS_PER_GROUP
from mtids_dist.model.params import ParamCount, nothing_allocated

if TYPE_CHECKING:
    from mtids_dist.model.mtids import MTIDS


class Trunk(str, Enum):
    """Networks that read a crop: a small one for CPUs, and MONAI's 3-D ResNets with group norm."""

    SMALL = "small"
    RESNET10 = "resnet10"
    RESNET18 = "resnet18"
    RESNET50 = "resnet50"


class Routing(str, Enum):
    """How a task weighs experts: DBR, and the ablations of it."""

    DBR = "dbr"
    TIED = "tied"
    """One softmax over all experts of a task, as in CGC (Tang et al., "Progressive Layered Extraction", RecSys 2020)."""
    UNIFORM = "uniform"
    """Equal weights, no gates."""
    SHARED_CONTEXT = "shared_context"
    """DBR whose gates read the shared context only."""
    HARD = "hard"
    """No experts: every head reads the pooled trunk."""


Choice = TypeVar("Choice", bound=Enum)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of `MTIDS`.

    :raises ValueError: names the parameter, the rule and the value found.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    trunk: Trunk = Trunk.SMALL
    """small, resnet10, resnet18 or resnet50"""
    channels: tuple[int, ...] = (8, 32, 64)
    """of the small trunk: the width of each stage, every one of stride 2"""
    routing: Routing = Routing.DBR
    """dbr, tied, uniform, shared_context or hard"""
    shared_experts: int = 2
    """M; 0 leaves the private branch alone"""
    task_experts: int | Mapping[str, int] = 1
    """N, or N for each task by name; 0 leaves that task the shared branch alone"""
    expert_width: int = 32
    """features that an expert gives"""
    context_width: int = 16
    """features of a task's own context, beside the trunk's channels that all tasks read"""
    branch_temperature: float = 1.0
    """T_b of the gate between the branches"""
    expert_temperature: float = 1.0
    """T_e of the gates inside a branch"""
    top_k: int | None = None
    """experts kept in each branch, renormalised; null keeps all"""
    dropout: float = 0.0
    """before each head's last layer"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk", _choice("trunk", Trunk, self.trunk))
        object.__setattr__(self, "routing", _choice("routing", Routing, self.routing))
        object.__setattr__(self, "channels", tuple(self.channels))
        _require(len(self.channels) > 0, "channels", "have at least one entry", self.channels)
        for name, widths in (
            ("channels", self.channels),
            ("expert_width", [self.expert_width]),
            ("context_width", [self.context_width]),
        ):
            _require(all(w > 0 and w % CHANNELS_PER_GROUP == 0 for w in widths), name, "be positive multiples of 8", widths)
        for name in ("branch_temperature", "expert_temperature"):
            _require(0 < getattr(self, name) < float("inf"), name, "be positive and finite", getattr(self, name))
        _require(self.shared_experts >= 0, "shared_experts", "be at least 0", self.shared_experts)
        _require(min(self._task_counts(), default=0) >= 0, "task_experts", "be at least 0", self.task_experts)
        _require(self.top_k is None or self.top_k >= 1, "top_k", "be null or at least 1", self.top_k)
        _require(0 <= self.dropout < 1, "dropout", "lie in [0, 1)", self.dropout)
        self._refuse_ignored()

    def _task_counts(self) -> list[int]:
        return list(self.task_experts.values()) if isinstance(self.task_experts, Mapping) else [self.task_experts]

    def _refuse_ignored(self) -> None:
        gateless = self.routing in (Routing.UNIFORM, Routing.HARD)
        if gateless or self.routing is Routing.TIED:
            _require(
                self.branch_temperature == 1,
                "branch_temperature",
                f"be 1 with routing {self.routing.value}",
                self.branch_temperature,
            )
        if gateless:
            _require(
                self.expert_temperature == 1,
                "expert_temperature",
                f"be 1 with routing {self.routing.value}",
                self.expert_temperature,
            )
            _require(self.top_k is None, "top_k", f"be null with routing {self.routing.value}", self.top_k)

    def experts_of(self, tasks: Mapping[str, int]) -> dict[str, int]:
        """N of each task; 0 with hard sharing.

        :raises ValueError: no task, a task name or class count that can't be built, `task_experts` for other tasks than
            these, or a task without any expert.
        """
        _check_tasks(tasks)
        if self.routing is Routing.HARD:
            return dict.fromkeys(tasks, 0)
        counts = self.task_experts
        if isinstance(counts, Mapping):
            _require(set(counts) == set(tasks), "task_experts", f"name exactly the tasks {sorted(tasks)}", sorted(counts))
        else:
            counts = dict.fromkeys(tasks, counts)
        for task in tasks:
            _require(
                self.shared_experts + counts[task] > 0,
                "task_experts",
                f"be positive for {task!r}: shared_experts is 0",
                counts[task],
            )
        return {task: counts[task] for task in tasks}

    @property
    def keeps_function_when_growing(self) -> bool:
        """Whether an expert can be split without changing the network's function: under soft gates."""
        return self.top_k is None and self.routing in (Routing.DBR, Routing.TIED, Routing.SHARED_CONTEXT)

    def build(self, tasks: Mapping[str, int]) -> MTIDS:
        """The model for `tasks` (name -> number of classes), randomly initialised.

        :raises ValueError: as `experts_of`.
        """
        from mtids_dist.model.mtids import MTIDS  # the model reads its config, so it can't be imported above

        return MTIDS(tasks, **{field.name: getattr(self, field.name) for field in fields(self)})

    def num_params(self, tasks: Mapping[str, int]) -> ParamCount:
        """What `build(tasks)` would hold; nothing is allocated.

        :raises ValueError: as `experts_of`.
        """
        with nothing_allocated():
            return ParamCount.of(self.build(tasks))


def _choice(name: str, choices: type[Choice], value: object) -> Choice:
    try:
        return choices(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(c.value for c in choices)}, found {value!r}") from None


def _require(holds: bool, name: str, rule: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{name} must {rule}, found {found!r}")


def _check_tasks(tasks: Mapping[str, int]) -> None:
    _require(len(tasks) > 0, "tasks", "name at least one task", dict(tasks))
    for task, classes in tasks.items():
        # Task names become parts of parameter names, in containers that have attributes of their own.
        _require(task != "" and "." not in task, "tasks", "have names without dots", task)
        _require(not hasattr(nn.ModuleDict(), task), "tasks", "not be named like an attribute of a torch module", task)
        _require(classes >= 2, "tasks", f"have at least 2 classes ({task!r})", classes)

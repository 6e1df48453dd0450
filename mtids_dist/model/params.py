"""What a model costs in parameters, by part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, kw_only=True)
class ParamCount:
    """Numbers of parameters, over all tasks; the fields are the names of the model's own parts."""

    trunk: int
    shared_experts: int
    task_experts: int
    adaptors: int
    gating: int
    heads: int

    @classmethod
    def of(cls, model: nn.Module) -> ParamCount:
        """Count a model; one on the meta device will do."""
        parts = dict(model.named_children())
        return cls(**{field.name: sum(p.numel() for p in parts[field.name].parameters()) for field in fields(cls)})

    @property
    def shared(self) -> int:
        """What all tasks share, and gradient balancing acts on: the trunk and the shared experts."""
        return self.trunk + self.shared_experts

    @property
    def private(self) -> int:
        """What belongs to one task each, summed over the tasks."""
        return self.task_experts + self.adaptors + self.gating + self.heads

    @property
    def total(self) -> int:
        """Every parameter."""
        return self.shared + self.private


@contextmanager
def nothing_allocated() -> Iterator[None]:
    """Inside, modules are built on torch's meta device and no initial value is drawn: there, torch would first import for seconds
    what tells the shape of a random number."""
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))

"""What a model costs in parameters, by part."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import nn


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

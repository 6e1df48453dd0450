"""MTIDS: trunk, experts, gates and heads put together, and the border between what is shared and what is private.

    z = f(x);  q_k = [pool z; pool A_k(z)];  beta_k, pi_k = gate_k(q_k)
    h_k = beta^s_k sum_m pi^s_km S_m(z) + beta^p_k sum_j pi^p_kj P^k_j(z);  logits_k = head_k(h_k)

Shape suffixes: B batch, D H W a crop's size, C channels and d h w size of the trunk's map, Q context, W width of an expert,
M shared experts, N private experts of a task, E = M + N.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from mtids_dist.model.blocks import pool
from mtids_dist.model.config import ModelConfig, Routing
from mtids_dist.model.experts import Adaptor, Experts, Head
from mtids_dist.model.gates import Gate, GateUse, UniformGate, watched
from mtids_dist.model.trunk import build_trunk

Logits = dict[str, Tensor]
Border = tuple[Tensor, ...]


class MTIDS(nn.Module):
    """A multi-task network with DBR gates (our reading of MT-IDS's abstract), or one of its ablations.

    Parameters are named `trunk.*`, `shared_experts.{weight,norm_weight,norm_bias}` (these two are shared) and, of one task each,
    `task_experts.<task>.{weight,norm_weight,norm_bias}`, `adaptors.<task>.*`,
    `gating.<task>.{branch,shared,private}.{weight,bias}`, `heads.<task>.*`. Shared expert m is row m of its three tensors, and of
    `gating.<task>.shared` in every task; private expert j is row j likewise, of its task's tensors and `gating.<task>.private`.
    Beside each of these biases lies a buffer `log_share`. Gates compute in float32 whatever the network's precision.

    :param tasks: name -> number of classes.
    :param settings: those of `ModelConfig`.
    :raises ValueError: a setting or a task that can't be built.
    """

    def __init__(self, tasks: Mapping[str, int], **settings: Any) -> None:
        super().__init__()
        self.config = config = ModelConfig(**settings)
        self.tasks = dict(tasks)
        experts = config.experts_of(tasks)
        hard = config.routing is Routing.HARD

        self.trunk = build_trunk(config)
        channels: int = self.trunk.out_channels  # type: ignore[assignment]  # torch types it as Tensor | Module
        width = channels if hard else config.expert_width
        self.shared_experts = Experts(0 if hard else config.shared_experts, channels, width)
        self.task_experts = nn.ModuleDict({task: Experts(count, channels, width) for task, count in experts.items()})
        own_context = tasks if config.routing in (Routing.DBR, Routing.TIED) else ()
        self.adaptors = nn.ModuleDict({task: Adaptor(channels, config.context_width) for task in own_context})
        context = channels + (config.context_width if own_context else 0)
        self.gating = nn.ModuleDict() if hard else nn.ModuleDict({t: build_gate(config, context, n) for t, n in experts.items()})
        self.heads = nn.ModuleDict({task: Head(width, classes, config.dropout) for task, classes in tasks.items()})

    def forward(self, crops_B1DHW: Tensor, return_features: bool = False) -> Logits | tuple[Logits, Border]:
        """Logits [B, classes] of each task, from crops of any size with D >= 1.

        With `return_features` also the border tensors: a view of z [B, C, d, h, w] that all private parts read, and
        S_1(z) ... S_M(z) as one tensor [B, M, W], computed from z itself, so that neither depends on the other. With
        u_k = grad(L_k, border), one backward from the border with sum_k w_k u_k is the shared gradient of sum_k w_k L_k. A task
        need not reach both. Without shared experts: the view alone. With hard sharing: the tensor that the heads read, [B, C].
        """
        logits, border = self._from_map(self.trunk(crops_B1DHW))
        return (logits, border) if return_features else logits

    def from_features(self, z_BCdhw: Tensor) -> Logits:
        """Logits [B, classes] of each task, from the trunk's map."""
        return self._from_map(z_BCdhw)[0]

    def _from_map(self, z_BCdhw: Tensor) -> tuple[Logits, Border]:
        return self._pooled(z_BCdhw) if self.config.routing is Routing.HARD else self._routed(z_BCdhw)

    def _pooled(self, z_BCdhw: Tensor) -> tuple[Logits, Border]:
        h_BC = pool(z_BCdhw)
        return {task: head(h_BC) for task, head in self.heads.items()}, (h_BC,)

    def _routed(self, z_BCdhw: Tensor) -> tuple[Logits, Border]:
        z_private = z_BCdhw.view_as(z_BCdhw)
        shared_BMW = self.shared_experts(z_BCdhw)
        use = self.gates_from_features(z_private)
        private = {task: experts(z_private) for task, experts in self.task_experts.items()}
        return self.mix(use, shared_BMW, private), ((z_private, shared_BMW) if len(self.shared_experts) else (z_private,))

    def mix(self, use: Mapping[str, GateUse], shared_BMW: Tensor, private: Mapping[str, Tensor]) -> Logits:
        """Logits [B, classes] of each task, from its gate's weights and what its experts gave, [B, N, W]."""
        return {task: head(use[task].mixed(shared_BMW, private[task])) for task, head in self.heads.items()}

    def experts_of(self, task: str) -> Experts:
        """The private experts P^k_j of a task."""
        experts = self.task_experts[task]
        assert isinstance(experts, Experts)
        return experts

    def gates_from_features(self, z_private: Tensor) -> dict[str, GateUse]:
        """As `gates`, from the trunk's map."""
        contexts = self.contexts(z_private)
        return {task: gate(contexts[task]) for task, gate in self.gating.items()}

    def contexts(self, z_private: Tensor) -> dict[str, Tensor]:
        """What each gate reads, q_k [B, Q], from the trunk's map."""
        shared_BC = pool(z_private)
        contexts = dict.fromkeys(self.gating, shared_BC)
        return contexts | {task: torch.cat([shared_BC, adaptor(z_private)], dim=1) for task, adaptor in self.adaptors.items()}

    def gates(self, crops_B1DHW: Tensor) -> dict[str, GateUse]:
        """How each task weighs its experts on these crops; empty with hard sharing, which has no gates."""
        return self.gates_from_features(self.trunk(crops_B1DHW))

    def watched_gates(self) -> AbstractContextManager[Mapping[str, GateUse]]:
        """How each task weighed its experts in the last forward pass inside the block, without a pass of its own."""
        return watched(self.gating)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The trunk's and the shared experts': what gradient balancing acts on."""
        return [*self.trunk.parameters(), *self.shared_experts.parameters()]

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """What belongs to `task` alone: private experts, adaptor, gate and head.

        :raises ValueError: no such task.
        """
        if task not in self.tasks:
            raise ValueError(f"task must be one of {', '.join(self.tasks)}, found {task!r}")
        parts = (self.task_experts, self.adaptors, self.gating, self.heads)
        return [parameter for part in parts if task in part for parameter in part[task].parameters()]


def build_gate(config: ModelConfig, context: int, task_experts: int) -> nn.Module:
    """The gate of a task with so many private experts, which reads a context of so many numbers."""
    if config.routing is Routing.UNIFORM:
        return UniformGate(num_shared=config.shared_experts, num_private=task_experts)
    return Gate(
        context,
        num_shared=config.shared_experts,
        num_private=task_experts,
        branch_temperature=config.branch_temperature,
        expert_temperature=config.expert_temperature,
        top_k=config.top_k,
        tied=config.routing is Routing.TIED,
    )

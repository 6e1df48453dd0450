"""DBR's dual-control gate, and its peers: tied branches (CGC) and uniform weights.

Our reading of MT-IDS's abstract, which gives no equations. With q the context of a task:
    beta = softmax(W^b q / T_b + b^b) over {shared, private}
    pi^s = softmax(W^s q / T_e + b^s) over the M shared experts, pi^p likewise over the N private ones
The biases stand outside the temperature: an expert split into c copies keeps the function at every T with b - log c.

Whatever the network's precision, a gate computes in float32 or wider: in bfloat16 a logit of 4 and one of 4.01 are the same.

Shape suffixes: B batch, Q context, M shared experts, N private experts of the task, E experts of one branch, W width of an
expert.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class GateUse(NamedTuple):
    """A gate's weights per sample; each of the three sums to 1 over its last axis unless that is empty."""

    branch: Tensor
    """beta [B, 2]: of the shared and of the private branch."""
    shared: Tensor
    """pi^s [B, M]."""
    private: Tensor
    """pi^p [B, N]."""

    def mixture(self) -> Tensor:
        """Weights [B, M + N] of all experts, shared ones first; each row sums to 1."""
        return torch.cat([self.branch[:, :1] * self.shared, self.branch[:, 1:] * self.private], dim=1)

    def mixed(self, shared_BMW: Tensor, private_BNW: Tensor) -> Tensor:
        """What the task's experts gave, weighted [B, W], in the experts' own precision."""
        outputs_BEW = torch.cat([shared_BMW, private_BNW], dim=1)
        return torch.bmm(self.mixture().to(outputs_BEW.dtype).unsqueeze(1), outputs_BEW).squeeze(1)


class GateRows(nn.Module):
    """Logits W q / T + b of a context q in float32 or wider.

    One row of `weight` and one entry of `bias` per choice, all zero at first.
    """

    def __init__(self, rows: int, context: int, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, context))
        self.bias = nn.Parameter(torch.zeros(rows))
        self.temperature = temperature

    def forward(self, q_BQ: Tensor) -> Tensor:
        """One logit per row, [B, rows]."""
        return self._logits(q_BQ, wide(self.bias))

    def _logits(self, q_BQ: Tensor, bias_E: Tensor) -> Tensor:
        return torch.addmm(bias_E, q_BQ, wide(self.weight).t(), alpha=1 / self.temperature)


class ExpertRows(GateRows):
    """Rows that choose experts: `log_share` [rows] is added, and not learned.

    It is -log c where an expert was split into c copies; so weight decay treats a copy's bias as it would have treated the
    original's.
    """

    log_share: Tensor

    def __init__(self, rows: int, context: int, temperature: float) -> None:
        super().__init__(rows, context, temperature)
        self.register_buffer("log_share", torch.zeros(rows))

    def forward(self, q_BQ: Tensor) -> Tensor:
        """One logit per expert, [B, rows]."""
        return self._logits(q_BQ, wide(self.bias) + self.log_share)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own precision where that is wider."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def top_k_softmax(logits_BE: Tensor, k: int | None) -> Tensor:
    """Softmax over the k largest logits of a row, 0 elsewhere; over all of them if k is None or not below E."""
    if k is not None and k < logits_BE.shape[1]:
        top = logits_BE.topk(k, dim=1)
        logits_BE = torch.full_like(logits_BE, -torch.inf).scatter(1, top.indices, top.values)
    return logits_BE.softmax(dim=1)


def fixed_branch(q_BQ: Tensor, shared: float) -> Tensor:
    """The same beta = (shared, 1 - shared) for every sample, [B, 2]."""
    branch_B2 = q_BQ.new_full((len(q_BQ), 2), 1 - shared)
    branch_B2[:, 0] = shared
    return branch_B2


class Gate(nn.Module):
    """The gate of one task. A branch without experts has no rows, and the other one takes the whole weight.

    :param tied: branch logits are the logsumexp of their experts' logits, which makes the gate CGC's one softmax over M + N.
    :param top_k: keep so many experts of each branch, renormalised; None keeps all.
    """

    def __init__(
        self,
        context: int,
        *,
        num_shared: int,
        num_private: int,
        branch_temperature: float = 1.0,
        expert_temperature: float = 1.0,
        top_k: int | None = None,
        tied: bool = False,
    ) -> None:
        super().__init__()
        both = num_shared > 0 and num_private > 0
        self.shared = ExpertRows(num_shared, context, expert_temperature) if num_shared else None
        self.private = ExpertRows(num_private, context, expert_temperature) if num_private else None
        self.branch = GateRows(2, context, branch_temperature) if both and not tied else None
        self.top_k = top_k

    def forward(self, q_BQ: Tensor) -> GateUse:
        """Weights of the branches and of the experts inside each, from the task's context q."""
        q_BQ = wide(q_BQ)
        nothing = q_BQ.new_empty(len(q_BQ), 0)
        shared_BM = nothing if self.shared is None else self.shared(q_BQ)
        private_BN = nothing if self.private is None else self.private(q_BQ)
        branch_B2 = self._branch(q_BQ, shared_BM, private_BN)
        return GateUse(branch_B2, top_k_softmax(shared_BM, self.top_k), top_k_softmax(private_BN, self.top_k))

    def _branch(self, q_BQ: Tensor, shared_BM: Tensor, private_BN: Tensor) -> Tensor:
        if self.shared is None or self.private is None:
            return fixed_branch(q_BQ, shared=float(self.private is None))
        if self.branch is not None:
            logits_B2: Tensor = self.branch(q_BQ)
        else:
            logits_B2 = torch.stack([shared_BM.logsumexp(dim=1), private_BN.logsumexp(dim=1)], dim=1)
        return logits_B2.softmax(dim=1)


class UniformGate(nn.Module):
    """Equal weights of the branches that have experts, and of the experts inside each; nothing to learn."""

    def __init__(self, *, num_shared: int, num_private: int) -> None:
        super().__init__()
        self.num_shared, self.num_private = num_shared, num_private

    def forward(self, q_BQ: Tensor) -> GateUse:
        """The same weights for every sample; of the context only batch size, dtype and device matter."""
        shared = (self.num_shared > 0) / ((self.num_shared > 0) + (self.num_private > 0))
        q_BQ = wide(q_BQ)
        shared_BM, private_BN = (q_BQ.new_full((len(q_BQ), n), 1 / max(n, 1)) for n in (self.num_shared, self.num_private))
        return GateUse(fixed_branch(q_BQ, shared), shared_BM, private_BN)


@contextmanager
def watched(gating: nn.ModuleDict) -> Iterator[dict[str, GateUse]]:
    """What each gate gave when it was last asked, by its name, as long as the block lasts."""
    last: dict[str, GateUse] = {}

    def watch(task: str, gate: nn.Module) -> RemovableHandle:
        return gate.register_forward_hook(lambda _gate, _inputs, use: last.update({task: use}))

    handles = [watch(task, gate) for task, gate in gating.items()]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()

"""One rank's model, losses, engine and balancer, and the balanced step that they make together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtids_dist.balance import BalanceInfo
from mtids_dist.data import Batch
from mtids_dist.model import MTIDS
from mtids_dist.train.engine import build_engine
from mtids_dist.train.job import TrainJob
from mtids_dist.train.losses import Counts, TaskLosses
from mtids_dist.train.network import scalarization_for


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step did, the same on every rank.

    :param loss: {task: mean loss over the global batch}; None for a task without a label in it.
    :param label_mass: {task: labels (times class weights) in the global batch}.
    :param balance: weights and Gramian.
    :param stop: whether any rank was asked to stop.
    """

    loss: Mapping[str, float | None]
    label_mass: Mapping[str, float]
    balance: BalanceInfo
    stop: bool


class Learner:
    """Takes balanced steps. Every rank of the process group makes one, from the same job.

    :param counts: {task: labels per class in the training folds}.
    :param model: built from `job.model`, the same weights on every rank.
    :param batch_size: of this rank.
    :param total_steps: of the whole run, for the learning rate's schedule.
    """

    def __init__(self, job: TrainJob, counts: Counts, model: MTIDS, *, batch_size: int, total_steps: int) -> None:
        self.tasks = job.tasks
        self.engine = build_engine(model, job.train.optimizer, job.train.scale, batch_size=batch_size, total_steps=total_steps)
        self.model: Any = self.engine.module
        self.device = torch.device(self.engine.device)
        self.losses = TaskLosses(job.tasks, counts, job.train.loss).to(self.device)
        self.balancer = job.balance.build_balancer(
            self.model.shared_parameters(), scalarization_for(model, job), engine=self.engine, seed=job.seed
        )
        self._micro_batches, self._needs_features = job.train.scale.micro_batches, job.balance.needs_features
        self._dtype = next(self.model.parameters()).dtype

    def step(self, batch: Batch, *, stop: bool = False) -> StepResult:
        """One balanced step on this rank's share of the global batch; a collective."""
        self.model.train()
        mass, stop = self._agree(self.losses.label_mass(self._labels(batch)), stop)
        total, shares = None, dist.get_world_size() * self._micro_batches
        for part in batch.cut(self._micro_batches):
            logits, features = self._with_features(part.crops)
            losses = self.losses(logits, self._labels(part), mass, shares)
            info = self.balancer.backward(losses, features)
            if not info.skipped:
                self.engine.step()
                self._show_losses_after(part, mass, shares, info)
            found = torch.stack([loss.detach() for loss in losses.values()])
            total = found if total is None else total + found
        assert total is not None
        return StepResult(
            loss=self._global_loss(total / self._micro_batches, mass),
            label_mass=dict(zip(self.tasks, mass.tolist(), strict=True)),
            balance=info,
            stop=stop,
        )

    def _show_losses_after(self, part: Batch, mass: Tensor, shares: int, info: BalanceInfo) -> None:
        """One more forward, for a method that learns from what a step changed."""
        if self.balancer.needs_losses_after_step and info.complete:
            with torch.no_grad():
                self.balancer.after_step(self.losses(self.forward(part.crops), self._labels(part), mass, shares))

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """Logits of the bare module, without DeepSpeed's hooks on its outputs."""
        logits: dict[str, Tensor] = self.model(self._on_device(crops))
        return logits

    def _with_features(self, crops: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Logits, and the border tensors where the balancer needs them: ZeRO-3 wraps what a call of the module returns, so that
        its border would no longer be the graph's."""
        if not self._needs_features:
            return self.forward(crops), ()
        logits, features = self.model.forward(self._on_device(crops), return_features=True)
        return logits, features

    def _on_device(self, crops: Tensor) -> Tensor:
        return crops.to(self.device, self._dtype, non_blocking=True)

    def _labels(self, batch: Batch) -> dict[str, Tensor]:
        return {task: label.to(self.device, non_blocking=True) for task, label in batch.labels.items()}

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.engine.get_lr()[0])

    def _agree(self, mass: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Label mass [K] of the global batch, and whether any rank wants to stop, in one collective."""
        both = torch.cat([mass.double(), mass.new_tensor([float(stop)]).double()])
        dist.all_reduce(both)
        return both[:-1], bool(both[-1] > 0)

    def _global_loss(self, losses: Tensor, mass: Tensor) -> dict[str, float | None]:
        mean = losses.double()
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
        values = zip(self.tasks.items(), mean.tolist(), mass.tolist(), strict=True)
        return {name: value / task.loss_weight if known else None for (name, task), value, known in values}

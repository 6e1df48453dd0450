"""One rank's model, losses, engine and balancer, and the balanced step that they make together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtids_dist.balance import BalanceInfo
from mtids_dist.data import Batch
from mtids_dist.model import MTIDS
from mtids_dist.train.engine import build_engine
from mtids_dist.train.host_copy import HostCopy
from mtids_dist.train.job import TrainJob
from mtids_dist.train.losses import Counts, TaskLosses
from mtids_dist.train.network import scalarization_for


class StepResult:
    """What a step did, the same on every rank. Losses are read from the device when they are asked for, and not before.

    :param balance: weights and Gramian.
    :param loss_weights: of each task, by which its loss was multiplied.
    :param agreed: label mass [K], and how many ranks were asked to stop.
    :param losses: [K], means over the global batch.
    """

    def __init__(self, balance: BalanceInfo, loss_weights: Mapping[str, float], agreed: HostCopy, losses: HostCopy) -> None:
        self.balance = balance
        self._loss_weights, self._agreed, self._losses = loss_weights, agreed, losses

    @property
    def label_mass(self) -> dict[str, float]:
        """{task: labels (times class weights) in the global batch}."""
        return dict(zip(self._loss_weights, self._agreed.read(), strict=False))

    @property
    def stop(self) -> bool:
        """Whether any rank was asked to stop; known from the step's beginning on."""
        return self._agreed.read()[-1] > 0

    @property
    def loss(self) -> dict[str, float | None]:
        """{task: mean loss over the global batch}; None for a task without a label in it."""
        values = zip(self._loss_weights.items(), self._losses.read(), self._agreed.read(), strict=False)
        return {task: value / weight if known else None for (task, weight), value, known in values}

    @property
    def is_here(self) -> bool:
        """Whether asking for the losses waits for nothing."""
        return self._losses.is_here


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
        agreed = self._agree(self.losses.label_mass(self._labels(batch)), stop)
        agreed_copy, mass = HostCopy(agreed), agreed[:-1]
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
        loss_weights = {name: task.loss_weight for name, task in self.tasks.items()}
        mean = HostCopy(self._mean_over_ranks(total / self._micro_batches))
        return StepResult(info, loss_weights, agreed_copy, mean)

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
        """Another precision is made there: the other way round the copy would be of memory that is not pinned."""
        return crops.to(self.device, non_blocking=True).to(self._dtype)

    def _labels(self, batch: Batch) -> dict[str, Tensor]:
        return {task: label.to(self.device, non_blocking=True) for task, label in batch.labels.items()}

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.engine.get_lr()[0])

    def _agree(self, mass: Tensor, stop: bool) -> Tensor:
        """Label mass [K] of the global batch, and how many ranks were asked to stop, in one collective."""
        both = torch.cat([mass.double(), torch.full((1,), float(stop), dtype=torch.float64, device=mass.device)])
        dist.all_reduce(both)
        return both

    def _mean_over_ranks(self, losses: Tensor) -> Tensor:
        mean = losses.double()
        dist.all_reduce(mean)
        return mean / dist.get_world_size()

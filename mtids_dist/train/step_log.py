"""Turns steps into lines of metrics.jsonl: losses, weights, cosines, speed, waiting."""

from __future__ import annotations

import time
from typing import Any

from mtids_dist.train.checkpoint import Progress
from mtids_dist.train.learner import StepResult
from mtids_dist.train.metrics_log import MetricsLog


class StepLog:
    """Writes every `every`-th step; speed and waiting are of all steps since the last line.

    A line whose numbers are still on their way from the device is written when they are here, or with the next step: the device
    has then begun with that one.

    :param log: None on every rank but 0.
    :param samples_per_step: of all ranks together.
    """

    def __init__(self, log: MetricsLog | None, every: int, samples_per_step: int) -> None:
        self._log, self._every, self._samples = log, every, samples_per_step
        self._waiting: tuple[StepResult, dict[str, Any]] | None = None
        self._begin()

    def _begin(self) -> None:
        self._since, self._steps, self._waited_s = time.perf_counter(), 0, 0.0

    def add(self, result: StepResult, progress: Progress, *, learning_rate: float, waited_s: float) -> None:
        """Counts a step, and writes a line when it is time."""
        self._steps += 1
        self._waited_s += waited_s
        self.close()
        if self._log is None or progress.step % self._every:
            return
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        fields = {
            "step": progress.step,
            "epoch": progress.epoch,
            "time_s": time.time(),
            "learning_rate": learning_rate,
            "samples_per_s": self._samples * self._steps / elapsed,
            "data_wait_share": min(self._waited_s / elapsed, 1.0),
        }
        self._waiting = (result, fields)
        self._begin()
        if result.is_here:
            self.close()

    def close(self) -> None:
        """Writes the line that still waits for its numbers, if one does."""
        if self._waiting is None or self._log is None:
            return
        (result, fields), self._waiting = self._waiting, None
        info = result.balance
        self._log.append(
            "step",
            **fields,
            tasks=list(info.tasks),
            loss=result.loss,
            weights=dict(zip(info.tasks, info.weights.tolist(), strict=True)),
            gradient_norms=dict(zip(info.tasks, info.norms.tolist(), strict=True)),
            cosines=info.cosines.tolist(),
            labels=result.label_mass,
        )

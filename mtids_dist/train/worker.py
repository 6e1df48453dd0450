"""What runs on every Ray Train worker: set up, resume, epochs, checkpoints."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist
from joblib import cpu_count
from safetensors.torch import save_file

from mtids_dist.data import Batch, Split, label_counts, open_store, steps_per_epoch, train_batches, validation_batches
from mtids_dist.model import load_trunk
from mtids_dist.train.checkpoint import (
    PortableState,
    Progress,
    load_checkpoint,
    save_checkpoint,
    save_portable,
    whole_weights,
)
from mtids_dist.train.config import Selection
from mtids_dist.train.engine import close_engine
from mtids_dist.train.job import Leg, RunFolder, TrainJob
from mtids_dist.train.learner import Learner, StepResult
from mtids_dist.train.logs import log_to_file
from mtids_dist.train.losses import absent_classes
from mtids_dist.train.metrics_log import MetricsLog
from mtids_dist.train.network import build_network, without_scalarization
from mtids_dist.train.step_log import StepLog
from mtids_dist.train.validation import Validation, validate


def train_on_rank(settings: dict[str, Any]) -> None:
    """Ray Train's loop per worker.

    `settings`: `job` and `leg` as JSON data, `folder` (the run folder), `threads` (None: this worker's share of its node's
    cores), and `shard` (this rank's part of the data set) where Ray Train does not hand it out.
    """
    job, leg = TrainJob.model_validate(settings["job"]), Leg.model_validate(settings["leg"])
    folder = RunFolder(Path(settings["folder"]))
    log_to_file(folder.logs, f"rank-{dist.get_rank()}")
    try:
        shard = settings.get("shard") or ray.train.get_dataset_shard("train")
        _RankLoop(job, folder, leg, shard=shard, threads=settings["threads"] or _share_of_cores()).run()
    except Exception:
        logging.exception("rank %d failed", dist.get_rank())
        raise


class _RankLoop:
    """The epochs of one rank. Only rank 0 writes to the run folder."""

    def __init__(self, job: TrainJob, folder: RunFolder, leg: Leg, *, shard: Any, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(job.seed)
        assert job.data.store is not None
        self.job, self.folder, self.leg = job, folder, leg
        self.store = open_store(job.data.store)
        self.train_folds = self.store.folds_of(Split.TRAIN, job.data.fold)
        self.held_out = self.store.folds_of(Split.VALIDATION, job.data.fold)
        self.steps = steps_per_epoch(self.store.count(self.train_folds), dist.get_world_size(), job.data.batch_size)
        self.log = MetricsLog(folder.metrics) if dist.get_rank() == 0 else None
        self.progress = Progress()
        self.shard = shard
        self.has_stepped = False
        self.learner = self._set_up()

    def run(self) -> None:
        """Trains to the leg's last epoch, or until asked to stop."""
        if self.leg.validate_first:
            self._validate()
        while self.progress.epoch < self.leg.until:
            if self._epoch():
                self._checkpoint()
                self._event("stopped", step=self.progress.step)
                return
            self.learner.balancer.end_epoch()
            self.progress.epoch, self.progress.step_in_epoch = self.progress.epoch + 1, 0
            if self._due(self.job.train.validate_every):
                self._validate()
            if self._due(self.job.train.checkpoint_every) and not self.leg.hands_over:
                self._checkpoint()
        if self.leg.hands_over:
            self._hand_over()
        else:
            self._finish()

    def _set_up(self) -> Learner:
        job, counts = self.job, label_counts(self.store, self.train_folds, self.job.tasks)
        saved, checkpoint = self._last_checkpoint()
        model = build_network(job)
        if saved is not None:
            model.load_state_dict(saved.weights)
        elif job.train.init_from is not None:
            self._event("initialised", report=str(load_trunk(model, job.train.init_from)))
        learner = Learner(job, counts, model, batch_size=job.data.batch_size, total_steps=max(self.steps * job.train.epochs, 1))
        if saved is not None:
            assert checkpoint is not None
            load_checkpoint(learner, saved, checkpoint)
            self.progress = saved.progress
        self._announce(resumed=saved is not None, absent=absent_classes(job.tasks, counts))
        return learner

    def _announce(self, *, resumed: bool, absent: dict[str, list[str]]) -> None:
        if self.log is not None and resumed:
            self.log.rewind(self.progress.step)
        self._event(
            "resumed" if resumed else "started",
            step=self.progress.step,
            steps_per_epoch=self.steps,
            epochs=self.job.train.epochs,
            workers=dist.get_world_size(),
            absent_classes=absent,
        )

    def _epoch(self) -> bool:
        """The steps that are left of this epoch; True when asked to stop."""
        job, progress = self.job, self.progress
        # Dropout and augmentation of an epoch depend on nothing before it.
        seed = np.random.SeedSequence((job.seed, progress.epoch, dist.get_rank())).generate_state(1)[0]
        torch.manual_seed(int(seed))
        batches = train_batches(
            self.shard,
            job.data,
            job.tasks,
            crop_shape=self.store.crop_shape,
            steps=self.steps - progress.step_in_epoch,
            seed=int(seed),
            pin=self.learner.device.type == "cuda",
        )
        step_log = StepLog(self.log, job.train.log_every, dist.get_world_size() * job.data.batch_size)
        result: StepResult | None = None
        with closing(step_log):
            for batch, waited_s in _with_waiting_time(batches):
                if not self.has_stepped:
                    self._event("first step", step=progress.step)
                    self.has_stepped = True
                learning_rate = self.learner.learning_rate
                result = self.learner.step(batch, stop=self.folder.stop_flag.exists())
                progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
                step_log.add(result, progress, learning_rate=learning_rate, waited_s=waited_s)
                if result.stop:
                    batches.close()
                    break
        return result is not None and result.stop

    def _due(self, every: int) -> bool:
        return self.progress.epoch % every == 0 or self.progress.epoch == self.leg.until

    def _validate(self) -> None:
        batches = validation_batches(
            self.store,
            self.held_out,
            self.job.data,
            self.job.tasks,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            batch_size=self.job.data.batch_size,
        )
        found = validate(self.learner, batches, rows=self.store.count(self.held_out), batch_size=self.job.data.batch_size)
        if self.job.train.select is Selection.BEST and not self.leg.hands_over:
            self._keep_if_best(found)
        if self.log is not None and found is not None:
            self.log.append(
                "validation",
                epoch=self.progress.epoch,
                step=self.progress.step,
                loss=dict(found.loss),
                metrics=dict(found.metrics),
                fused=dict(found.fused),
                gates=dict(found.gates),
                score=found.score,
            )

    def _keep_if_best(self, found: Validation | None) -> None:
        """Gathering the weights is a collective, so every rank takes part whether they are the best or not."""
        weights = whole_weights(self.learner.model)
        best = self.progress.best_score
        if found is not None and (best is None or found.score < best):
            self.progress.best_score = found.score
            _save_weights(weights, self.folder.best_weights)

    def _checkpoint(self) -> None:
        with tempfile.TemporaryDirectory(prefix="mtids-checkpoint-") as local:
            save_checkpoint(self.learner, self.progress, Path(local))
            ray.train.report({"step": self.progress.step}, checkpoint=ray.train.Checkpoint.from_directory(local))

    def _finish(self) -> None:
        weights = whole_weights(self.learner.model)
        if dist.get_rank() == 0:
            if self.job.train.select is Selection.BEST:
                self.folder.best_weights.replace(self.folder.weights)
            else:
                _save_weights(weights, self.folder.weights)
        self._event("finished", step=self.progress.step, epoch=self.progress.epoch)

    def _hand_over(self) -> None:
        save_portable(self.learner, self.progress, self.folder.state)
        self._event("handed over", step=self.progress.step)
        close_engine(self.learner.engine)

    def _last_checkpoint(self) -> tuple[PortableState, Path] | tuple[None, None]:
        """This run's own last checkpoint, else what the leg starts from."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            return PortableState.read(Path(checkpoint.path)), Path(checkpoint.path)
        if self.leg.start is not None:
            return PortableState.read(self.leg.start), self.leg.start
        return None, None

    def _event(self, event: str, **fields: Any) -> None:
        if self.log is not None:
            self.log.append("event", event=event, time_s=time.time(), **fields)


def _share_of_cores() -> int:
    """Cores of this very machine (or of the container's part of it), divided by the workers on it."""
    workers: int = ray.train.get_context().get_local_world_size()
    return max(1, int(cpu_count()) // workers)


def _save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    draft = path.with_suffix(".draft")
    save_file(without_scalarization(weights), draft)
    draft.replace(path)


def _with_waiting_time(batches: Any) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    before = 0.0
    for batch in batches:
        yield batch, batches.wait_s - before
        before = batches.wait_s

"""The Ray Train wiring: workers, their share of the store, restarts, and what the driver sees of it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.train import CheckpointConfig, DataConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from mtids_dist.data import ingest_options
from mtids_dist.errors import StoppedError
from mtids_dist.train.checkpoint import Progress
from mtids_dist.train.checks import check_gpus, check_job
from mtids_dist.train.config import ScaleConfig
from mtids_dist.train.failures import told, worker_was_lost
from mtids_dist.train.job import CHECKPOINTS, Leg, RunFolder, TrainJob
from mtids_dist.train.leg import dataset_of, order_seed, rank_settings
from mtids_dist.train.metrics_log import Line, MetricsLog, Tail, read_lines
from mtids_dist.train.run_folder import has_finished
from mtids_dist.train.worker import train_on_rank

POLL_S = 0.2


def train(job: TrainJob, folder: RunFolder, *, on_line: Callable[[Line], None]) -> None:
    """Trains on the Ray that this process is connected to, or goes on from the folder's last checkpoint.

    Leaves `model.safetensors`, `metrics.jsonl` and checkpoints in `folder`. SIGTERM, SIGINT and the folder's stop flag end it
    with a checkpoint.

    :param on_line: called with every new line of metrics.jsonl.
    :raises InputError: what `check_job` refuses.
    :raises StoppedError: it was asked to stop; the same call goes on.
    :raises WorkFailedError: workers were lost more often than allowed, or training itself failed.
    """
    check_job(job)
    check_cluster(job.train.scale)
    leg = Leg(until=job.train.epochs, start=folder.start.absolute() if folder.start.exists() else None)
    tail = Tail(folder.metrics)
    tail.skip()

    def look() -> None:
        for line in tail.new_lines():
            on_line(line)

    with _stop_on_signals(folder.stop_flag):
        for attempt in range(job.train.max_failures + 1):
            error = _watched(_trainer(job, folder, leg), look)
            if error is None:
                break
            if attempt == job.train.max_failures or not worker_was_lost(error):
                raise told(error, folder.logs) from error
            MetricsLog(folder.metrics).append(
                "event", event="worker lost", time_s=time.time(), error=str(told(error, folder.logs))
            )
    if not has_finished(folder, job.train.epochs):
        raise StoppedError("stopped with a checkpoint; the same command goes on from it")


def _watched(trainer: TorchTrainer, look: Callable[[], None]) -> BaseException | None:
    """One fit, from the last checkpoint if there is one. Runs beside the main thread, which keeps signals and display."""
    fit = _InThread(trainer.fit)
    fit.start()
    while fit.is_alive():
        fit.join(POLL_S)
        look()
    look()
    return fit.error


def _trainer(job: TrainJob, folder: RunFolder, leg: Leg) -> TorchTrainer:
    scale, use_gpu = job.train.scale, gpus_per_worker(job.train.scale) > 0
    return TorchTrainer(
        train_on_rank,
        train_loop_config=rank_settings(job, folder, leg),
        scaling_config=ScalingConfig(num_workers=scale.workers, use_gpu=use_gpu, resources_per_worker=resources_of(scale)),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        datasets={"train": dataset_of(job, seed=_order_seed(job, folder, leg), name=folder.name)},
        dataset_config=DataConfig(execution_options=ingest_options()),
        run_config=_NamedRun(
            name=folder.name,
            storage_path=str(folder.path.absolute()),
            failure_config=FailureConfig(max_failures=0),
            checkpoint_config=CheckpointConfig(num_to_keep=job.train.keep_checkpoints),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


class _NamedRun(RunConfig):  # type: ignore[misc]  # Ray has no types
    """Ray calls a run as it calls the folder of its checkpoints; this one has the run folder's name, and `checkpoints`."""

    @cached_property
    def storage_context(self) -> Any:
        """Where Ray Train keeps what is reported."""
        return RunConfig(name=CHECKPOINTS, storage_path=self.storage_path).storage_context


def _order_seed(job: TrainJob, folder: RunFolder, leg: Leg) -> int:
    lines = read_lines(folder.metrics) if folder.metrics.exists() else iter(())
    begun = 0 if leg.start is None else Progress.read(leg.start).epoch
    return order_seed(job, first_epoch=max((line["epoch"] for line in lines if line["kind"] == "step"), default=begun))


def check_cluster(scale: ScaleConfig) -> None:
    """What the connected cluster can't train, before a worker starts.

    :raises InputError: see `check_gpus`.
    """
    check_gpus(scale, ray.cluster_resources().get("GPU", 0))


def gpus_per_worker(scale: ScaleConfig) -> float:
    """What a worker gets of the cluster's GPUs: as described, or one each where there are any (`check_gpus`)."""
    if scale.gpus_per_worker is not None:
        return scale.gpus_per_worker
    return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0


def cpus_of(scale: ScaleConfig) -> float:
    """What all workers together take of the cluster's CPUs."""
    return scale.workers * resources_of(scale)["CPU"]


def resources_of(scale: ScaleConfig) -> dict[str, float]:
    """What a worker takes of the cluster. Leaves a CPU for Ray Data: when Train reserves every one of them, reading stalls."""
    spare = ray.cluster_resources().get("CPU", 1.0) - 1.0
    cpus = scale.cpus_per_worker or min(1.0, max(spare, 0.5) / scale.workers)
    gpus = gpus_per_worker(scale)
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


class _InThread(threading.Thread):
    """Runs `fit` in a thread of its own. What it raised is in `error`."""

    def __init__(self, fit: Callable[[], Any]) -> None:
        super().__init__(daemon=True, name="ray-train")
        self._fit = fit
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._fit()
        except BaseException as error:  # handed to the main thread
            self.error = error


@contextmanager
def _stop_on_signals(flag: Path) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C set the stop flag; a second Ctrl-C interrupts. Left alone outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(signum: int, _frame: Any) -> None:
        if signum == signal.SIGINT and flag.exists():
            raise KeyboardInterrupt
        flag.touch()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

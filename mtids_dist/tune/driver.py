"""The driver of a search: hosts, Ray Tune, and what is left when it is over."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.tune.search import BasicVariantGenerator

from mtids_dist.errors import InputError, StoppedError, WorkFailedError
from mtids_dist.train import TrainJob, check_cluster, check_job, gpus_per_worker
from mtids_dist.tune.config import Scheduler, SearchConfig
from mtids_dist.tune.folder import SearchFolder
from mtids_dist.tune.history import History, Line, Replay, Start
from mtids_dist.tune.host import HostPool, make_hosts, remove_hosts
from mtids_dist.tune.lineage import write_lineage
from mtids_dist.tune.member import MEMBER, Member
from mtids_dist.tune.pauses import pauses_s
from mtids_dist.tune.schedulers import make_scheduler
from mtids_dist.tune.space import check_space, first_points, job_at, limits
from mtids_dist.tune.winner import export_winner

POLL_S = 0.2
MEMBER_BYTES = 256 << 20
"""What Tune reserves for a trial, which only waits for hosts: no CPU, since those that read data must stay whole."""


def search(job: TrainJob, config: SearchConfig, folder: SearchFolder, description: Mapping[str, Any], *, on_line: OnLine) -> Line:
    """Searches on the Ray that this process is connected to, or goes on with the search in the folder; the winner's result.

    Leaves `history.jsonl`, `lineage.json` and the winner in `best/`.

    :param description: the resolved run description, of which the winner's is made.
    :param on_line: called with every new line of the history.
    :raises InputError: what `check_space` and `check_job` refuse, or a cluster without room for one member.
    :raises StoppedError: it was asked to stop; the same call goes on with the generation that was under way.
    :raises WorkFailedError: training failed in every member.
    """
    check_space(job, config)
    check_job(job)
    check_cluster(job.train.scale)
    history = History.open(folder.history)
    starts = _starts(job, config, history)
    groups, resources, threads = room(job, config, ray.cluster_resources())
    hosts = make_hosts(
        groups,
        resources,
        world_size=job.train.scale.workers,
        job=job,
        search=config,
        home=folder.path.absolute(),
        threads=threads,
    )
    pool = ray.remote(HostPool).options(num_cpus=0).remote(hosts, config.max_failures + 1)
    try:
        history.add({**_stand(history), "hosts": groups, "resources": resources, "seed": job.seed})
        _watch(_tuner(job, config, folder, history, starts, pool, at_a_time=groups).fit, history, on_line, folder)
    finally:
        ray.kill(pool)
        remove_hosts(hosts)
    return _finish(job, config, folder, history, description, on_line)


OnLine = Callable[[Line], None]


def _stand(history: History) -> Line:
    """Where a search begins or goes on: so much was trained, so far, with so many failures, and this is the best."""
    results, best = history.results, history.best
    return {
        "event": "resumed" if results else "started",
        "trained": len(results),
        "generation": max((line["generation"] for line in results), default=0),
        "failed": sum(line["score"] is None for line in results) + len(history.of("dropped")),
        "best_score": best["score"] if best else None,
    }


def room(job: TrainJob, config: SearchConfig, resources: Mapping[str, float]) -> tuple[int, dict[str, float], int]:
    """How many members can train at a time, what each of their ranks gets, and its threads, as far as its machine has cores for
    them. One CPU is left to read data.

    :raises InputError: there is no room for one member.
    """
    scale, cpus, gpus = job.train.scale, resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    gpu = gpus_per_worker(scale)
    limits_ = [config.members, config.concurrent or config.members]
    if gpu:
        limits_.append(math.floor(gpus / (gpu * scale.workers) + 1e-6))
    if scale.cpus_per_worker is not None:
        limits_.append(math.floor((cpus - 1) / (scale.cpus_per_worker * scale.workers) + 1e-6))
    elif not gpu:
        limits_.append(max(1, math.floor(cpus / scale.workers)))
    groups = min(limits_)
    if groups < 1:
        wanted = f"{scale.workers} workers of {scale.cpus_per_worker or 'any'} CPUs and {gpu:g} GPUs, and one CPU to read data"
        raise InputError("no room for one member", where="the cluster", found=f"{cpus:g} CPUs, {gpus:g} GPUs", allowed=wanted)
    ranks = groups * scale.workers
    cpu = scale.cpus_per_worker or min(1.0, math.floor(max(cpus - 1, 0.5) / ranks * 1e4) / 1e4)
    of_rank = {"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu}
    return groups, of_rank, max(1, math.floor(cpus / ranks))


def _starts(job: TrainJob, config: SearchConfig, history: History) -> dict[int, Start]:
    if not history.of("member"):
        # With halving most members train little: the budget says how many can be begun.
        number = config.budget if config.scheduler is Scheduler.ASHA else config.members
        points = first_points(job, config, number=number)
        history.add(*({"event": "member", "member": i, "settings": point} for i, point in enumerate(points)))
    if config.compares_generations:
        return history.starts(Replay.OPEN)
    return history.starts(Replay.NONE if config.scheduler is Scheduler.PBT else Replay.ALL)


def _tuner(
    job: TrainJob,
    config: SearchConfig,
    folder: SearchFolder,
    history: History,
    starts: dict[int, Start],
    hosts: ActorHandle,
    *,
    at_a_time: int,
) -> tune.Tuner:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the history is written instead
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints whatever the verbosity is
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    pbt = config.scheduler is Scheduler.PBT
    member = tune.with_parameters(
        Member,
        home=folder.path.absolute(),
        starts=starts,
        hosts=hosts,
        keeps_on=pbt,
    )
    return tune.Tuner(
        tune.with_resources(member, {"memory": MEMBER_BYTES}),
        param_space={MEMBER: None, **dict.fromkeys(config.space)},
        tune_config=tune.TuneConfig(
            num_samples=len(starts),
            scheduler=make_scheduler(config, history, limits(job, config), seed=job.seed),
            search_alg=BasicVariantGenerator(
                points_to_evaluate=[{**start.settings, MEMBER: member} for member, start in starts.items()],
                # Trials of pbt are all alive at once and wait for hosts; others come one after the other.
                max_concurrent=0 if pbt else at_a_time,
            ),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"session-{int(time.time())}",
            storage_path=str(folder.tune.absolute()),
            stop=_Over(config, history),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            verbose=0,
        ),
    )


class _Over(tune.Stopper):  # type: ignore[misc]  # Ray has no types
    """A member stops after the last generation; the search when its budget is spent, or when training fails everywhere."""

    def __init__(self, config: SearchConfig, history: History) -> None:
        self._config, self._history = config, history

    def __call__(self, _trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether this trial stops."""
        return bool(result["generation"] >= self._config.generations)

    def stop_all(self) -> bool:
        """Whether everything stops."""
        results = self._history.results
        last = results[-self._config.members :]
        failed = len(last) == self._config.members and all(line["score"] is None for line in last)
        return failed or len(results) >= self._config.budget


def _watch(fit: Callable[[], Any], history: History, on_line: OnLine, folder: SearchFolder) -> None:
    """Runs beside the main thread, which keeps signals, the stop flag and the display."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:  # handed to the main thread
            failed.append(error)

    told = len(history.lines) - 1
    thread = threading.Thread(target=run, daemon=True, name="ray-tune")
    thread.start()
    with _signals() as asked:
        while thread.is_alive():
            thread.join(POLL_S)
            told = _tell(history, told, on_line)
            if asked.is_set() or folder.stop_flag.exists():
                # Tune's thread goes on, and takes members for lost when the hosts end.
                history.seal()
                raise StoppedError("stopped; the same command goes on with the generation that was under way")
    _tell(history, told, on_line)
    if failed:
        raise WorkFailedError(f"the search failed: {failed[0]}") from failed[0]


def _tell(history: History, told: int, on_line: OnLine) -> int:
    lines = history.lines[told:]
    if lines:
        write_lineage(history)
    for line in lines:
        on_line(line)
    return told + len(lines)


def _finish(
    job: TrainJob, config: SearchConfig, folder: SearchFolder, history: History, description: Mapping[str, Any], on_line: OnLine
) -> Line:
    winner = history.best
    dropped = {line["member"] for line in history.of("dropped")}
    if winner is None or dropped == {line["member"] for line in history.of("member")}:
        errors = [line["error"] for line in history.of("result", "dropped") if line["error"]]
        raise WorkFailedError(f"training failed in every member: {errors[0] if errors else 'no result'}; see {folder.path}")
    write_lineage(history)
    export_winner(folder, history, winner, job_at(job, winner["settings"]), description)
    finished = {key: winner[key] for key in ("member", "generation", "score", "settings", "counts")}
    history.add({"event": "finished", "winner": finished, "pauses_s": pauses_s(history) if config.compares_generations else []})
    on_line(history.lines[-1])
    shutil.rmtree(folder.tune, ignore_errors=True)
    return winner


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set. Nothing has to be saved: every generation is a checkpoint."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

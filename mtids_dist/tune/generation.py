"""One member's generation on a host: what it begins with, and what came of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtids_dist.data import Split, open_store, validation_batches
from mtids_dist.model import ResizePlan, plan_resize
from mtids_dist.train import Leg, PortableState, Progress, RunFolder, TrainJob, build_network, read_lines, without_scalarization
from mtids_dist.tune.assignment import Assignment
from mtids_dist.tune.config import Resize, SearchConfig, is_count
from mtids_dist.tune.space import Counts, Point, counts_of, job_at


@dataclass(frozen=True, kw_only=True)
class Resized:
    """What a change of expert counts made of a copied state.

    :param settings: the member's, without what was refused.
    :param state: folder of the portable state to go on from.
    :param change: how far class probabilities of a sample moved; None where no count changed, or nothing was kept.
    :param refused: what was asked for, but moved them too far.
    """

    settings: Point
    state: Path | None = None
    change: float | None = None
    refused: str | None = None


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a generation begins with, after a change of expert counts.

    :param job: of this generation.
    :param leg: from which state to which epoch.
    """

    job: TrainJob
    leg: Leg
    resized: Resized
    counts: Counts


def begin(job: TrainJob, search: SearchConfig, home: Path, assignment: Assignment) -> Beginning:
    """Clears the generation's folder and lays the state in it that training begins with."""
    folder = RunFolder(home / assignment.name)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True)
    resized = _resize(job, search, home, assignment, folder.start)
    begun = job_at(job, resized.settings)
    leg = Leg(
        until=assignment.generation * (job.train.epochs // search.generations),
        start=resized.state,
        validate_first=assignment.copies,
        hands_over=True,
    )
    return Beginning(job=begun, leg=leg, resized=resized, counts=counts_of(begun.model, job))


def result_of(assignment: Assignment, beginning: Beginning, home: Path, *, began_s: float) -> dict[str, Any]:
    """What the history keeps of a trained generation; times are Unix times in seconds."""
    folder, job, resized = RunFolder(home / assignment.name), beginning.job, beginning.resized
    lines = list(read_lines(folder.metrics))
    losses = [line["score"] for line in lines if line["kind"] == "validation"]
    events = {line["event"]: line for line in lines if line["kind"] == "event"}
    return assignment.result(
        settings=resized.settings,
        score=losses[-1],
        counts=beginning.counts,
        parameters=job.model.num_params(job.num_classes).total,
        state=str(Path(assignment.name, folder.state.name)),
        loss_before=assignment.start["score"] if assignment.copies and assignment.start is not None else None,
        loss_after=losses[0] if assignment.copies else None,
        change=resized.change,
        refused=resized.refused,
        step=events["handed over"]["step"],
        began_s=began_s,
        first_step_s=events["first step"]["time_s"],
        ended_s=time.time(),
        error=None,
    )


def _resize(job: TrainJob, search: SearchConfig, home: Path, assignment: Assignment, target: Path) -> Resized:
    """What to begin with: nothing, the state as it was left, or one with other expert counts in `target`."""
    settings = dict(assignment.settings)
    if assignment.start is None:
        return Resized(settings=settings)
    source, donor, wanted = home / assignment.start["state"], job_at(job, assignment.start["settings"]), job_at(job, settings)
    if counts_of(donor.model, job) == counts_of(wanted.model, job):
        return Resized(settings=settings, state=source)
    seed = int(np.random.SeedSequence((job.seed, assignment.generation, assignment.member)).generate_state(1)[0])
    if search.resize is Resize.REINITIALISE:
        _write_new_network(wanted, Progress.read(source), target, seed=seed)
        return Resized(settings=settings, state=target)
    return _copy_function(job, search, assignment, source, target, seed=seed)


def _write_new_network(job: TrainJob, progress: Progress, target: Path, *, seed: int) -> None:
    """A network that has learned nothing, at the point of the run where the copied one stood."""
    torch.manual_seed(seed)
    weights = build_network(job).state_dict()
    PortableState(progress=progress, weights=weights, moments={}, balancer={}).write(target)


def _copy_function(
    job: TrainJob, search: SearchConfig, assignment: Assignment, source: Path, target: Path, *, seed: int
) -> Resized:
    """The donor's function in a network with the wanted counts; what would change it too much is not done."""
    assert assignment.start is not None
    state, donor = PortableState.read(source), job_at(job, assignment.start["settings"])
    model = donor.model.build(job.num_classes)
    model.load_state_dict(without_scalarization(state.weights))
    sample = _sample(donor, search.sample_rows)

    def plan_for(settings: Point) -> ResizePlan:
        wanted = job_at(job, settings).model
        return plan_resize(
            model, shared_experts=wanted.shared_experts, task_experts=wanted.experts_of(job.num_classes), sample=sample
        )

    settings, refused = dict(assignment.settings), None
    plan = plan_for(settings)
    if plan.change is not None and plan.change > search.max_change:
        before = counts_of(model.config, job)
        shrinks = [key for key in settings if is_count(key) and settings[key] < assignment.start["settings"][key]]
        refused = f"{_told(before, counts_of(plan.config, job))}: change {plan.change:.3f} above {search.max_change:g}"
        # Under soft gates only shrinking changes anything; under others nothing of the change is kept.
        undone = shrinks if donor.model.keeps_function_when_growing else [key for key in settings if is_count(key)]
        settings |= {key: assignment.start["settings"][key] for key in undone}
        if counts_of(job_at(job, settings).model, job) == before:
            return Resized(settings=settings, state=source, refused=refused)
        plan = plan_for(settings)
    PortableState(
        progress=state.progress,
        weights=plan.apply_to_weights(state.weights, noise=search.resize_noise, seed=seed),
        moments=plan.apply_to_moments(state.moments),
        balancer=state.balancer,
    ).write(target)
    return Resized(settings=settings, state=target, change=plan.change, refused=refused)


def _sample(job: TrainJob, rows: int) -> torch.Tensor:
    """Crops [rows, 1, D, H, W] spread evenly over the training folds."""
    assert job.data.store is not None
    store = open_store(job.data.store)
    folds = store.folds_of(Split.TRAIN, job.data.fold)
    stride = max(1, store.count(folds) // rows)
    batches = validation_batches(store, folds, job.data, job.tasks, rank=0, world_size=stride, batch_size=rows)
    return next(iter(batches))[0].crops


def _told(before: Counts, after: Counts) -> str:
    return ", ".join(f"{name} {count} -> {after[name]}" for name, count in before.items() if count != after[name])

"""Validation over ranks: what each of them saw of a fold adds up to what one process sees, the gates' weights too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from tiny import make_store

from mtids_dist.data import open_store
from mtids_dist.evaluate import predict_store
from mtids_dist.tasks import Task

TASKS = {name: Task(column=name, classes="binary") for name in ("bright", "upper")}
ROWS, BATCH, WINDOW, SEED = 50, 8, (-200.0, 200.0), 5


def job(routing: str, stage: int):  # noqa: ANN201  # imported late: a TrainJob
    from mtids_dist.train import TrainJob

    scale = {"zero_stage": stage, "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
    model = {"channels": [8], "expert_width": 8, "context_width": 8, "routing": routing}
    model |= {"shared_experts": 3, "task_experts": {"bright": 1, "upper": 2}} if routing == "dbr" else {}
    data = {"batch_size": BATCH, "window": WINDOW}
    return TrainJob.model_validate({"tasks": TASKS, "data": data, "model": model, "train": {"scale": scale}})


def network(routing: str) -> Any:
    """Its gates differ between rows and tasks."""
    torch.manual_seed(SEED)
    model = job(routing, 0).model.build(dict.fromkeys(TASKS, 2))
    with torch.no_grad():
        for parameter in model.gating.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def validated(store: Path, routing: str, stage: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    import torch.distributed as dist

    from mtids_dist.data import validation_batches
    from mtids_dist.train.learner import Learner
    from mtids_dist.train.validation import validate

    settings, world = job(routing, stage), {"rank": dist.get_rank(), "world_size": dist.get_world_size()}
    counts = {task: np.ones(2, dtype=np.int64) for task in TASKS}
    learner = Learner(settings, counts, network(routing), batch_size=BATCH, total_steps=1)
    opened = open_store(store)
    batches = validation_batches(opened, [0], settings.data, settings.tasks, batch_size=BATCH, **world)
    found = validate(learner, batches, rows=opened.count([0]), batch_size=BATCH)
    return None if found is None else (dict(found.gates), dict(found.loss))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("validation") / "store", rows_per_fold=ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (3, 2), (2, 3)])
def test_gates_are_the_means_over_the_whole_fold(store: Path, world_size: int, stage: int) -> None:
    """3 ranks have stripes of 17, 17 and 16 rows: the third pass of the last one, which fills it up, must not be counted."""
    gates, _ = run_ranks(validated, world_size, store, "dbr", stage)[0]
    expected = predict_store(network("dbr"), open_store(store), TASKS, [0], window=WINDOW).gates
    for task in TASKS:
        assert gates[task]["use"] == pytest.approx(expected[task].use, rel=1e-4)
        assert gates[task]["branch"] == pytest.approx(expected[task].branch, rel=1e-4)
    assert [len(gates[task]["use"]) for task in TASKS] == [4, 5]
    assert max(gates["upper"]["use"]) > 1.5 * min(gates["upper"]["use"]), "random gates, or this test is blind"


@pytest.mark.slow
def test_a_network_without_gates_has_none(store: Path) -> None:
    gates, loss = run_ranks(validated, 2, store, "hard", 0)[0]
    assert gates == {}
    assert set(loss) == set(TASKS)

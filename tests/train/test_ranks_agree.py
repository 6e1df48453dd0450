"""One rank on a batch and several on its parts train the same network, whatever ZeRO stage, missing labels and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ranks import run_ranks
from torch import Tensor

from mtids_dist.data import Batch
from mtids_dist.tasks import MTIDS_TASKS

ROWS, STEPS, SEED = 12, 5, 3
STAGES = (0, 1, 2, 3)
MODES = ("micro-batches", "representation", "every 2", "uw", "famo")
SOME_STAGES = (0, 3)
SGD_CASES = (*((stage, "sgd") for stage in STAGES), *((stage, mode) for stage in SOME_STAGES for mode in MODES))
CASES = (*SGD_CASES, (2, "adamw"))

Case = tuple[int, str]
Run = tuple[Tensor, Tensor, list[dict[str, float | None]]]
"""Parameters before, parameters after 5 steps, losses."""


def job(stage: int, how: str = "sgd"):  # noqa: ANN201  # imported late: a TrainJob
    from mtids_dist.train import TrainJob

    optimizer = "adamw" if how == "adamw" else "sgd"
    return TrainJob.model_validate(
        {
            "seed": SEED,
            "model": {"channels": [8, 8], "expert_width": 8, "context_width": 8, "shared_experts": 2, "task_experts": 1},
            "balance": {
                "method": how if how in ("uw", "famo") else "ddgb",
                "gramian": "representation" if how == "representation" else "exact",
                "every": 2 if how == "every 2" else 1,
            },
            "train": {
                "optimizer": {"name": optimizer, "learning_rate": 0.1 if optimizer == "sgd" else 1e-3, "gradient_clipping": 0.3},
                "scale": {
                    "zero_stage": stage,
                    "micro_batches": 2 if how == "micro-batches" else 1,
                    "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
                },
                "loss": {"imbalance": "class_weights"},
            },
        }
    )


def global_batches() -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Labels are missing unevenly: metastasis is unknown in all of the second half, so one of two ranks has none."""
    generator = torch.Generator().manual_seed(SEED)
    batches = []
    for _ in range(STEPS):
        crops = torch.randn(ROWS, 1, 8, 8, 8, generator=generator)
        station = torch.randint(0, 11, (ROWS,), generator=generator)
        station[torch.rand(ROWS, generator=generator) < 0.3] = -1
        metastasis = torch.randint(0, 2, (ROWS,), generator=generator)
        metastasis[ROWS // 2 :] = -1
        known = (station >= 0) & (metastasis >= 0)
        joint = torch.where(known, station * 2 + metastasis, -1)
        batches.append((crops, {"joint": joint, "region": station, "metastasis": metastasis}))
    return batches


def train() -> dict[Case, Run]:
    """Every case, on this rank."""
    import torch.distributed as dist

    from mtids_dist.train.checkpoint import whole_weights
    from mtids_dist.train.learner import Learner
    from mtids_dist.train.network import build_network

    rank, size = dist.get_rank(), dist.get_world_size()
    mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    counts = {name: np.arange(1, task.num_classes + 1) for name, task in MTIDS_TASKS.items()}
    found = {}
    for stage, how in CASES:
        settings = job(stage, how)
        torch.manual_seed(SEED)
        model = build_network(settings)
        before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
        learner = Learner(settings, counts, model, batch_size=ROWS // size, total_steps=STEPS)
        losses = []
        for crops, labels in global_batches():
            result = learner.step(Batch(crops[mine], {task: label[mine] for task, label in labels.items()}))
            losses.append(dict(result.loss))
        after = whole_weights(learner.model)
        found[stage, how] = (before, torch.cat([after[name].reshape(-1) for name, _ in model.named_parameters()]), losses)
    return found


@pytest.fixture(scope="module")
def one_rank() -> dict[Case, Run]:
    return run_ranks(train, 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_give_the_parameters_of_one_rank(one_rank: dict[Case, Run], world_size: int) -> None:
    before, reference, losses = one_rank[0, "sgd"]
    moved = (reference - before).norm()
    assert moved > 1e-3 * before.norm()
    for found in run_ranks(train, world_size):
        for stage, how in SGD_CASES:
            start, after, seen = found[stage, how]
            before, reference, losses = one_rank[0, how]
            assert torch.equal(start, before)
            drift = ((after - reference).norm() / moved).item()
            print(
                f"seed {SEED}: {world_size} ranks, ZeRO {stage}, {how}: ||theta_R - theta_1|| = {drift:.1e} ||theta_1 - theta_0||"
            )
            assert drift <= 1e-4, f"{how}, ZeRO {stage} on {world_size} ranks"
            assert seen[-1]["metastasis"] == pytest.approx(losses[-1]["metastasis"], rel=1e-4)
        # Adam divides by near-zero second moments and so amplifies rounding: its losses are compared, not its parameters.
        for one, several in zip(one_rank[2, "adamw"][2], found[2, "adamw"][2], strict=True):
            assert one == pytest.approx(several, rel=1e-3)


@pytest.mark.slow
def test_stages_agree_on_one_rank(one_rank: dict[Case, Run]) -> None:
    for stage, how in SGD_CASES:
        before, reference, losses = one_rank[0, "sgd" if how == "micro-batches" else how]
        _, after, seen = one_rank[stage, how]
        assert (after - reference).norm() <= 1e-4 * (reference - before).norm()
        assert seen[-1] == pytest.approx(losses[-1], rel=1e-4)

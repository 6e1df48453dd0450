"""The product's own learner and network: every way to balance, on any number of ranks, trains what one rank trains.

Labels are missing unevenly and gradients are clipped, in every case.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ranks import run_ranks
from torch import Tensor

from mtids_dist.balance import SCALARIZATIONS, WEIGHTINGS
from mtids_dist.data import Batch
from mtids_dist.model import resize_experts
from mtids_dist.tasks import MTIDS_TASKS

SEED, ROWS, STEPS = 3, 48, 5
STAGES = (0, 1, 2, 3)
OPTIONS = {"constant": {"weights": [0.5, 0.3, 0.2]}}
RESIZED = {"shared_experts": 3, "task_experts": {"joint": 2, "region": 1, "metastasis": 3}}


class Case(NamedTuple):
    """What is trained, in which way."""

    stage: int
    method: str = "ddgb"
    gramian: str = "exact"
    every: int = 1
    micro_batches: int = 1
    precision: str = "fp32"
    more: str = ""
    """offload: the optimizer on the CPU; recompute: activation checkpointing; resized: other expert counts; adamw."""


class Run(NamedTuple):
    """Parameters before and after some steps, and the losses of the last one."""

    before: Tensor
    after: Tensor
    loss: dict[str, float | None]


DEPTH = tuple(
    Case(stage, gramian=gramian, every=every, micro_batches=micro_batches)
    for stage in STAGES
    for gramian, every in (("exact", 1), ("exact", 2), ("representation", 1), ("sketch", 1))
    for micro_batches in (1, 4)
)
ROUNDED = tuple(
    Case(stage, gramian=gramian, every=every, micro_batches=micro_batches, precision="bf16")
    for stage in STAGES
    for gramian, every, micro_batches in (("exact", 1, 1), ("exact", 2, 4), ("representation", 1, 1))
)
SWITCHES = tuple(
    case
    for stage in STAGES
    for case in (
        *(Case(stage, precision=precision, more="resized") for precision in ("fp32", "bf16")),
        Case(stage, more="recompute"),
        Case(stage, more="recompute", gramian="representation"),
        *((Case(stage, more="offload"),) if stage else ()),
    )
)
METHODS = sorted({*WEIGHTINGS, *SCALARIZATIONS, "none"} - {"ddgb"})


def job_of(case: Case) -> Any:
    from mtids_dist.train import TrainJob

    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    optimizer = {"name": "adamw", "learning_rate": 1e-3} if case.more == "adamw" else optimizer
    zero: dict[str, object] = {"stage3_param_persistence_threshold": 0}
    zero |= {"offload_optimizer": {"device": "cpu"}} if case.more == "offload" else {}
    return TrainJob.model_validate(
        {
            "seed": SEED,
            "data": {"batch_size": ROWS},
            "model": {"channels": [8, 8], "expert_width": 8, "context_width": 8, "shared_experts": 2, "task_experts": 1},
            "balance": {
                "method": case.method,
                "options": OPTIONS.get(case.method, {}),
                "gramian": case.gramian,
                "sketch_size": 512,
                "every": case.every,
            },
            "train": {
                "optimizer": {**optimizer, "gradient_clipping": 0.3},
                "loss": {"imbalance": "class_weights"},
                "scale": {
                    "zero_stage": case.stage,
                    "micro_batches": case.micro_batches,
                    "precision": case.precision,
                    "deepspeed": {"zero_optimization": zero},
                },
            },
        }
    )


def network_of(case: Case, job: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    from mtids_dist.train.network import build_network

    torch.manual_seed(SEED)
    model = build_network(job)
    with torch.no_grad():  # gates that say nothing would hide what they do
        for parameter in model.gating.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    if case.more == "resized":
        model = resize_experts(model, **RESIZED)
    if case.more == "recompute":
        trunk = model.trunk.forward
        model.trunk.forward = lambda crops: checkpoint(trunk, crops, use_reentrant=False)
    return model


def global_batch(step: int) -> Batch:
    """Metastasis is unknown in all of the second half, so that one of two ranks has no label of it."""
    generator = torch.Generator().manual_seed(SEED + step)
    crops = torch.randn(ROWS, 1, 6, 6, 6, generator=generator)
    station = torch.randint(0, 11, (ROWS,), generator=generator)
    station[torch.rand(ROWS, generator=generator) < 0.3] = -1
    metastasis = torch.randint(0, 2, (ROWS,), generator=generator)
    metastasis[ROWS // 2 :] = -1
    joint = torch.where((station >= 0) & (metastasis >= 0), station * 2 + metastasis, -1)
    return Batch(crops, {"joint": joint, "region": station, "metastasis": metastasis})


def train(cases: tuple[Case, ...]) -> dict[Case, Run]:
    """Every case, on this rank's part of the batches."""
    import torch.distributed as dist

    from mtids_dist.train.checkpoint import whole_weights
    from mtids_dist.train.learner import Learner

    rank, size = dist.get_rank(), dist.get_world_size()
    counts = {name: np.arange(1, task.num_classes + 1) for name, task in MTIDS_TASKS.items()}
    found = {}
    for case in cases:
        job = job_of(case)
        model = network_of(case, job)
        before = torch.cat([parameter.detach().reshape(-1).clone() for parameter in model.parameters()])
        learner = Learner(job, counts, model, batch_size=ROWS // size, total_steps=STEPS)
        torch.manual_seed(SEED + rank)
        for step in range(STEPS):
            result = learner.step(global_batch(step).cut(size)[rank])
            learner.balancer.end_epoch()
        weights = whole_weights(learner.model)
        after = torch.cat([weights[name].reshape(-1) for name, _ in model.named_parameters()])
        found[case] = Run(before, after, result.loss)
    return found


def check(cases: tuple[Case, ...], found: dict[Case, Run], one: dict[Case, Run], ranks: int) -> None:
    """||theta_R - theta_1|| / ||theta_1 - theta_0|| of each case."""
    for case in cases:
        # One rank without ZeRO, and without micro-batches where those change nothing, is what all others have to give.
        same = case.gramian != "representation"  # there a window is weighted as the one before it said
        stage = 1 if case.more == "offload" else 0
        reference = one[case._replace(stage=stage, micro_batches=1 if same else case.micro_batches)]
        assert torch.equal(found[case].before, reference.before)
        moved = reference.after - reference.before
        assert moved.norm() > 1e-3 * reference.before.norm(), f"{case} stands still"
        far = float((found[case].after - reference.after).norm() / moved.norm())
        print(f"seed {SEED}: {ranks} ranks, {case}: {far:.1e} of the way")
        # Two bf16 roundings of one gradient differ by up to 2^-8 of it, and so do the losses.
        assert far <= (0.03 if case.precision == "bf16" else 1e-4), f"{case} on {ranks} ranks"
        assert found[case].loss == pytest.approx(reference.loss, rel=1e-2 if case.precision == "bf16" else 1e-4)


@pytest.fixture(scope="module")
def one_rank() -> dict[Case, Run]:
    references = tuple(case._replace(stage=0, micro_batches=1) for case in ROUNDED if case.gramian == "exact")
    return dict(run_ranks(train, 1, (*DEPTH, *ROUNDED, *references))[0])


@pytest.mark.slow
def test_stages_and_micro_batches_agree_on_one_rank(one_rank: dict[Case, Run]) -> None:
    check((*DEPTH, *ROUNDED), one_rank, one_rank, 1)
    ways = [one_rank[case] for case in DEPTH if case.stage == 0 and case.micro_batches == 1]
    for one, other in combinations(ways, 2):
        assert (one.after - other.after).norm() > 1e-3 * (one.after - one.before).norm(), "the ways differ"


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "stages"), [(2, STAGES), (3, (0, 3)), (4, (1, 2))])
def test_ranks_agree(one_rank: dict[Case, Run], ranks: int, stages: tuple[int, ...]) -> None:
    cases = tuple(case for case in (*DEPTH, *(ROUNDED if ranks == 2 else ())) if case.stage in stages)
    for found in run_ranks(train, ranks, cases):
        check(cases, found, one_rank, ranks)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_ranks_agree_with_every_method(stage: int) -> None:
    cases = tuple(Case(0, method) for method in METHODS)
    (one,) = run_ranks(train, 1, cases)
    there = tuple(case._replace(stage=stage) for case in cases)
    for found in run_ranks(train, 2, there):
        check(there, found, one, 2)


@pytest.mark.slow
def test_ranks_agree_with_resized_networks_offload_and_recomputation(one_rank: dict[Case, Run]) -> None:
    one = run_ranks(train, 1, SWITCHES)[0]
    check(SWITCHES, one, one, 1)
    for found in run_ranks(train, 2, SWITCHES):
        check(SWITCHES, found, one, 2)
    plain = one_rank[Case(0)]
    for case, allowed in ((Case(0, more="recompute"), 1e-6), (Case(2, more="offload"), 1e-4)):
        assert (one[case].after - plain.after).norm() <= allowed * (plain.after - plain.before).norm()


@pytest.mark.slow
def test_adamw_sees_the_same_losses() -> None:
    """It divides by near-zero second moments and so amplifies rounding: its losses are compared, not its parameters."""
    case = Case(2, more="adamw")
    (one,) = run_ranks(train, 1, (case,))
    for several in run_ranks(train, 2, (case,)):
        assert several[case].loss == pytest.approx(one[case].loss, rel=1e-3)


def refused(settings: dict[str, object]) -> str:
    """What an engine with these settings is told."""
    import deepspeed

    from mtids_dist.balance import check_engine
    from mtids_dist.train.engine import use_no_compiled_ops

    use_no_compiled_ops()
    net = torch.nn.Linear(2, 2)
    base = {"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.0}
    engine, *_ = deepspeed.initialize(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), config=base | settings)
    try:
        check_engine(engine)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_engines_that_can_t_work_are_refused() -> None:
    assert run_ranks(refused, 1, {}) == [""]
    assert "bf16" in run_ranks(refused, 1, {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}})[0]

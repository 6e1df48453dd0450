"""On DeepSpeed: every way to balance gives one rank's parameters on several, whatever of DeepSpeed is switched on."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from balance.nets import ROWS, SEED, TASKS, Net, batch
from ranks import run_ranks
from torch import Tensor, nn

from mtids_dist.balance import SCALARIZATIONS, WEIGHTINGS, BalanceConfig, learned_parameters

STAGES = (0, 1, 2, 3)
STEPS = 5
OPTIONS = {"constant": {"weights": [0.5, 0.3, 0.2]}}


class Case(NamedTuple):
    """What is trained, in which way."""

    stage: int
    method: str = "ddgb"
    gramian: str = "exact"
    every: int = 1
    micro_batches: int = 1
    precision: str = "fp32"
    more: str = ""
    """offload: the optimizer on the CPU; recompute: activation checkpointing."""


DEPTH = tuple(
    Case(stage, gramian=gramian, every=every, micro_batches=micro_batches)
    for stage in STAGES
    for gramian, every in (("exact", 1), ("exact", 2), ("representation", 1), ("sketch", 1))
    for micro_batches in (1, 4)
)
METHODS = sorted({*WEIGHTINGS, *SCALARIZATIONS, "none"} - {"ddgb"})
SWITCHES = tuple(
    case
    for stage in STAGES
    for case in (
        Case(stage, precision="bf16"),
        Case(stage, precision="bf16", micro_batches=4),
        Case(stage, precision="bf16", gramian="representation"),
        Case(stage, more="recompute"),
        Case(stage, more="recompute", gramian="representation"),
        *((Case(stage, more="offload"),) if stage else ()),
    )
)


class Recomputing(Net):
    """The same network, which keeps no activation of its trunk."""

    def losses_and_border(self, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor]]:
        from torch.utils.checkpoint import checkpoint

        z = checkpoint(self.trunk, x, use_reentrant=False)
        return {task: nn.functional.cross_entropy(head(z), y[:, k]) for k, (task, head) in enumerate(self.heads.items())}, (z,)


def engine_of(net: Net, case: Case):  # noqa: ANN201  # DeepSpeed has no types
    from mtids_dist.train.config import OptimizerConfig, ScaleConfig
    from mtids_dist.train.engine import build_engine

    optimizer = OptimizerConfig.model_validate({"name": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0})
    zero: dict[str, object] = {"stage3_param_persistence_threshold": 0}
    if case.more == "offload":
        zero["offload_optimizer"] = {"device": "cpu"}
    scale = ScaleConfig.model_validate(
        {
            "zero_stage": case.stage,
            "micro_batches": case.micro_batches,
            "precision": case.precision,
            "deepspeed": {"zero_optimization": zero, "zero_force_ds_cpu_optimizer": False},
        }
    )
    return build_engine(net, optimizer, scale, batch_size=case.micro_batches, total_steps=STEPS)


def train(cases: tuple[Case, ...]) -> dict[Case, Tensor]:
    """Parameters after some steps."""
    import torch.distributed as dist

    from mtids_dist.train.checkpoint import whole_weights

    rank, size = dist.get_rank(), dist.get_world_size()
    found = {}
    for case in cases:
        net = Recomputing() if case.more == "recompute" else Net()
        config = BalanceConfig(
            method=case.method,
            options=OPTIONS.get(case.method, {}),
            gramian=case.gramian,
            sketch_size=64,  # of 248 parameters
            every=case.every,
        )
        scalarization = config.build_scalarization(len(TASKS))
        if scalarization is not None and learned_parameters(scalarization):
            net.add_module("scalarization", scalarization)
        engine = engine_of(net, case)
        balancer = config.build_balancer(net.trunk.parameters(), scalarization, engine=engine, seed=SEED)
        dtype = next(net.parameters()).dtype
        torch.manual_seed(SEED + rank)
        for step in range(STEPS):
            mine = (part[rank * ROWS // size : (rank + 1) * ROWS // size] for part in batch(step))
            for x, y in zip(*(part.chunk(case.micro_batches) for part in mine), strict=True):
                losses, border = net.losses_and_border(x.to(dtype), y)
                balancer.backward(losses, border)
                engine.step()
                if balancer.needs_losses_after_step:
                    balancer.after_step(net.losses(x.to(dtype), y))
            balancer.end_epoch()
        weights = whole_weights(engine.module)
        found[case] = torch.cat([weights[name].reshape(-1) for name, _ in net.named_parameters()])
    return found


def drift(found: Tensor, reference: Tensor) -> float:
    """||theta_R - theta_1|| / ||theta_1 - theta_0||; what a scalarization learns starts from 0."""
    start = nn.utils.parameters_to_vector(Net().parameters()).detach()
    start = torch.cat([start, start.new_zeros(len(reference) - len(start))])
    return float((found - reference).norm() / (reference - start).norm())


def check(cases: tuple[Case, ...], found: dict[Case, Tensor], one: dict[Case, Tensor], ranks: int) -> None:
    for case in cases:
        # One rank without ZeRO, and without micro-batches where those change nothing, is what all others have to give.
        same = case.gramian != "representation"  # there a window is weighted as the one before it said
        # In bf16 DeepSpeed keeps fp32 weights of its own from stage 1 on, and offloads from there on.
        stage = min(case.stage, 1) if case.precision == "bf16" or case.more == "offload" else cases[0].stage
        reference = one[case._replace(stage=stage, micro_batches=1 if same else case.micro_batches)]
        far = drift(found[case], reference)
        print(f"seed {SEED}: {ranks} ranks, {case}: {far:.1e} of the way")
        # Two bf16 roundings of one gradient differ by up to 2^-8 of it, and so do the losses.
        assert far <= (0.02 if case.precision == "bf16" else 1e-4), f"{case} on {ranks} ranks"


@pytest.fixture(scope="module")
def one_rank() -> dict[Case, Tensor]:
    return dict(run_ranks(train, 1, DEPTH)[0])


@pytest.mark.slow
def test_stages_and_micro_batches_agree_on_one_rank(one_rank: dict[Case, Tensor]) -> None:
    check(DEPTH, one_rank, one_rank, 1)
    ends = {round(float(one_rank[case].sum()), 5) for case in DEPTH if case.stage == 0 and case.micro_batches == 1}
    assert len(ends) == 4, "the ways differ"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_agree(one_rank: dict[Case, Tensor], ranks: int) -> None:
    for found in run_ranks(train, ranks, DEPTH):
        check(DEPTH, found, one_rank, ranks)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_ranks_agree_with_every_method(stage: int) -> None:
    cases = tuple(Case(stage, method) for method in METHODS)
    (one,) = run_ranks(train, 1, cases)
    for found in run_ranks(train, 2, cases):
        check(cases, found, one, 2)


@pytest.mark.slow
def test_ranks_agree_with_bf16_offload_and_recomputation(one_rank: dict[Case, Tensor]) -> None:
    one = run_ranks(train, 1, SWITCHES)[0]
    check(SWITCHES, one, one, 1)
    for found in run_ranks(train, 2, SWITCHES):
        check(SWITCHES, found, one, 2)
    plain = one_rank[Case(0)]
    assert drift(one[Case(0, more="recompute")], plain) <= 1e-6
    assert drift(one[Case(2, more="offload")], plain) <= 1e-4


def refused(settings: dict[str, object]) -> str:
    """What an engine with these settings is told."""
    import deepspeed

    from mtids_dist.balance import check_engine
    from mtids_dist.train.engine import use_no_compiled_ops

    use_no_compiled_ops()
    net = Net()
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

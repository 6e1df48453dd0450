"""On DeepSpeed: every way to balance gives one rank's parameters on several, in every ZeRO stage, with accumulation, too."""

from __future__ import annotations

import pytest
import torch
from balance.nets import ROWS, SEED, Net, batch
from ranks import run_ranks
from torch import Tensor

STAGES = (0, 1, 2, 3)
STEPS = 5
MODES = ("exact", "exact in 2 micro-batches", "representation", "every 2")
Mode = tuple[int, str]


def engine_of(net: Net, stage: int, micro_batches: int):  # noqa: ANN201  # DeepSpeed has no types
    from mtids_dist.train.config import OptimizerConfig, ScaleConfig
    from mtids_dist.train.engine import build_engine

    optimizer = OptimizerConfig.model_validate({"name": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0})
    deepspeed = {"zero_optimization": {"stage3_param_persistence_threshold": 0}, "gradient_accumulation_steps": micro_batches}
    scale = ScaleConfig.model_validate({"zero_stage": stage, "deepspeed": deepspeed})
    return build_engine(net, optimizer, scale, batch_size=1, total_steps=STEPS)


def train() -> dict[Mode, Tensor]:
    """Parameters after some steps, for every stage and mode."""
    import torch.distributed as dist

    from mtids_dist.balance import DDGBWeighting, GradientBalancer, RepresentationGramian
    from mtids_dist.train.checkpoint import whole_weights

    rank, size = dist.get_rank(), dist.get_world_size()
    found = {}
    for stage in STAGES:
        for mode in MODES:
            net, parts = Net(), 2 if "micro" in mode else 1
            engine = engine_of(net, stage, parts)
            balancer = GradientBalancer(
                net.trunk.parameters(),
                DDGBWeighting(),
                engine=engine,
                gramian=RepresentationGramian() if mode == "representation" else None,
                every=2 if mode == "every 2" else 1,
            )
            for step in range(STEPS):
                mine = (part[rank * ROWS // size : (rank + 1) * ROWS // size] for part in batch(step))
                for x, y in zip(*(part.chunk(parts) for part in mine), strict=True):
                    losses, border = net.losses_and_border(x, y)
                    balancer.backward(losses, border)
                    engine.step()
            weights = whole_weights(engine.module)
            found[stage, mode] = torch.cat([weights[name].reshape(-1) for name, _ in net.named_parameters()])
    return found


@pytest.mark.slow
def test_ranks_stages_and_micro_batches_agree() -> None:
    start = torch.nn.utils.parameters_to_vector(Net().parameters()).detach()
    (one,) = run_ranks(train, 1)
    for world_size, runs in ((1, [one]), (2, run_ranks(train, 2))):
        for found in runs:
            for stage, mode in found:
                reference = one[0, "exact" if mode.startswith("exact") else mode]
                moved = (reference - start).norm()
                drift = ((found[stage, mode] - reference).norm() / moved).item()
                print(f"seed {SEED}: {world_size} ranks, ZeRO {stage}, {mode}: {drift:.1e} of the way")
                assert drift <= 1e-4, f"{mode} on {world_size} ranks, ZeRO {stage}"
    assert len({round(float(one[0, mode].sum()), 6) for mode in MODES}) > 1, "modes differ"

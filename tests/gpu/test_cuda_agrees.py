"""A GPU and a CPU train the same network: five balanced steps end in the same place, whatever ZeRO stage."""

from __future__ import annotations

import pytest
import torch
from ranks import run_ranks
from small_steps import SEED, batches, small_job, small_learner
from torch import Tensor

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
STEPS = 5
STAGES = (0, 1, 2, 3)
WITHIN = {"fp32": 1e-4, "bf16": 0.02}
"""Of the way: rounding alone, in fp32 products and sums (no TF32), and in bf16 ones."""

Ends = dict[tuple[str, int], tuple[Tensor, Tensor]]
"""By precision and stage: all fp32 weights before and after, each as one vector."""


def train(device: str) -> Ends:
    """Train every case on the device of this process."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return {(precision, stage): trained(device, precision, stage) for precision in WITHIN for stage in STAGES}


def trained(device: str, precision: str, stage: int) -> tuple[Tensor, Tensor]:
    from mtids_dist.train.checkpoint import whole_weights
    from mtids_dist.train.engine import close_engine

    learner, start = small_learner(small_job(stage=stage, precision=precision), total_steps=STEPS)
    assert learner.device.type == device
    for batch in batches(STEPS):
        learner.step(batch)
    end = whole_weights(learner.model)
    close_engine(learner.engine)
    return torch.cat([w.reshape(-1) for w in start.values()]), torch.cat([end[name].reshape(-1) for name in start])


@pytest.fixture(scope="module")
def on_cpu() -> Ends:
    return dict(run_ranks(train, 1, "cpu")[0])


@pytest.fixture(scope="module")
def on_gpu(device: str) -> Ends:
    return dict(run_ranks(train, 1, device, device=device)[0])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", WITHIN)
def test_a_gpu_ends_where_a_cpu_does(on_cpu: Ends, on_gpu: Ends, precision: str, stage: int) -> None:
    start, of_cpu = on_cpu[precision, stage]
    same, of_gpu = on_gpu[precision, stage]
    assert torch.equal(start, same)
    way = (of_cpu - start).norm()
    assert way > 1e-3 * start.norm()
    apart = ((of_gpu - of_cpu).norm() / way).item()
    print(f"seed {SEED}: {precision}, ZeRO {stage}: ||theta_gpu - theta_cpu|| = {apart:.1e} ||theta_cpu - theta_0||")
    assert apart <= WITHIN[precision]

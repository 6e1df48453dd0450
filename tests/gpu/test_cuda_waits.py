"""A training step waits for the device a few times at most: at each wait the GPU runs dry until Python has caught up."""

from __future__ import annotations

import warnings

import pytest
import torch
from ranks import run_ranks
from small_steps import SEED, batches, small_job, small_learner

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
MOST = 3
CASES = {"plain": {"method": "none"}, "exact": {}, "representation": {"gramian": "representation"}}
WAIT = "synchronizing CUDA operation"
"""In torch's words."""


def waits(device: str) -> dict[str, list[str]]:
    """Return where one step of each case waits for the device of this process."""
    return {name: waits_of(device, **settings) for name, settings in CASES.items()}


def waits_of(device: str, **settings: str) -> list[str]:
    from mtids_dist.train.engine import close_engine

    learner, _ = small_learner(small_job(stage=0, **settings), total_steps=10)
    assert learner.device.type == device
    # A first step makes what the later ones use again; batches come pinned, as the stream hands them over.
    first, second, measured = (each.pinned() if device == "cuda" else each for each in batches(3))
    learner.step(first)
    learner.step(second)
    told = recorded(lambda: learner.step(measured), device)
    close_engine(learner.engine)
    return told


def recorded(step: object, device: str) -> list[str]:
    """Return a line for each wait in a step: where Python was, and what torch said."""
    assert callable(step)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}: {each.message}" for each in seen if WAIT in str(each.message)]


@pytest.fixture(scope="module")
def found(device: str) -> dict[str, list[str]]:
    return dict(run_ranks(waits, 1, device, device=device)[0])


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_the_device_a_few_times_at_most(found: dict[str, list[str]], case: str) -> None:
    print(f"seed {SEED}: {case} waits {len(found[case])} times", *found[case], sep="\n")
    assert len(found[case]) <= MOST

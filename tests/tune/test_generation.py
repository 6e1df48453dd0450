"""What a generation begins with: the copied function in a network with other counts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_store
from tiny_search import write_search

from mtids_dist.config import RunConfig, load_run
from mtids_dist.model import MTIDS
from mtids_dist.train import PortableState, Progress
from mtids_dist.tune.assignment import Assignment
from mtids_dist.tune.generation import Beginning, begin

SEED = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("tiny") / "store")


def describe(tmp_path: Path, store: Path, **tune: Any) -> RunConfig:
    return load_run(write_search(tmp_path / "search.yaml", store, **tune))


def donor_state(config: RunConfig, home: Path, counts: dict[str, int]) -> tuple[dict[str, Any], MTIDS]:
    """A donor's result line, and its network: random gates, moments and all."""
    torch.manual_seed(SEED)
    job = config.job()
    model = job.model.__class__(**{**job.model.__dict__, **counts}).build(job.num_classes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("gating"):
                parameter.normal_()
    moments = {n: {"exp_avg": torch.randn_like(p), "exp_avg_sq": torch.rand_like(p)} for n, p in model.named_parameters()}
    settings = {f"model.{name}": count for name, count in counts.items()} | {
        "train.optimizer.learning_rate": 0.001,
        "balance.options.tau": 0.5,
    }
    donor = Assignment(generation=2, member=0, settings=settings, start=None)
    state = PortableState(progress=Progress(step=8, epoch=2), weights=model.state_dict(), moments=moments, balancer={})
    state.write(home / donor.name / "state")
    line = donor.result(score=0.5, counts=counts, state=f"{donor.name}/state", error=None)
    return json.loads(json.dumps(line)), model.eval()


def copy_with(config: RunConfig, home: Path, donor: dict[str, Any], counts: dict[str, int]) -> tuple[Beginning, MTIDS]:
    """A member that copies the donor with other counts: what it begins with, and its network."""
    settings = donor["settings"] | {f"model.{name}": count for name, count in counts.items()}
    assignment = Assignment(generation=3, member=1, settings=settings, start=donor)
    beginning = begin(config.job(), config.tune, home, assignment)
    assert beginning.leg.start is not None
    model = beginning.job.model.build(beginning.job.num_classes)
    model.load_state_dict(dict(PortableState.read(beginning.leg.start).weights))
    return beginning, model.eval()


CROPS = torch.randn(5, 1, 8, 8, 8, generator=torch.Generator().manual_seed(SEED))


@torch.no_grad()
def difference_of(a: MTIDS, b: MTIDS) -> float:
    """Largest difference of any logit."""
    return max(float((a(CROPS)[task] - b(CROPS)[task]).abs().max()) for task in a.tasks)


def test_a_grown_copy_has_the_donors_function_and_stands_where_it_stood(tmp_path: Path, store: Path) -> None:
    config = describe(tmp_path, store, resize_noise=0.0)
    donor, model = donor_state(config, tmp_path, {"shared_experts": 2, "task_experts": 1})
    beginning, grown = copy_with(config, tmp_path, donor, {"shared_experts": 4, "task_experts": 3})
    assert beginning.counts == {"shared_experts": 4, "task_experts.bright": 3, "task_experts.upper": 3}
    assert difference_of(model, grown) < 1e-5
    assert beginning.resized.change is not None
    assert beginning.resized.change < 1e-6
    assert beginning.resized.refused is None
    assert beginning.leg.start is not None
    state = PortableState.read(beginning.leg.start)
    assert (state.progress.epoch, beginning.leg.until) == (2, 3)
    assert set(state.moments) == set(dict(grown.named_parameters()))
    assert beginning.leg.validate_first


def test_the_same_counts_go_on_from_the_donors_own_state(tmp_path: Path, store: Path) -> None:
    config = describe(tmp_path, store)
    donor, _ = donor_state(config, tmp_path, {"shared_experts": 2, "task_experts": 1})
    beginning, _ = copy_with(config, tmp_path, donor, {})
    assert beginning.leg.start == tmp_path / donor["state"]
    assert beginning.resized.change is None


def test_a_shrink_is_reported_and_refused_above_the_limit(tmp_path: Path, store: Path) -> None:
    config = describe(tmp_path, store, max_change=1.0)
    donor, model = donor_state(config, tmp_path, {"shared_experts": 4, "task_experts": 1})
    beginning, shrunk = copy_with(config, tmp_path, donor, {"shared_experts": 2})
    assert beginning.counts["shared_experts"] == 2
    assert beginning.resized.change is not None
    assert beginning.resized.change > 1e-4
    assert difference_of(model, shrunk) > 1e-4

    strict = describe(tmp_path, store, max_change=beginning.resized.change / 2)
    beginning, kept = copy_with(strict, tmp_path, donor, {"shared_experts": 2})
    assert beginning.resized.refused is not None
    assert beginning.resized.refused.startswith("shared_experts 4 -> 2: change 0.")
    assert beginning.resized.settings["model.shared_experts"] == 4
    assert difference_of(model, kept) == 0


def test_what_grows_is_done_where_what_shrinks_is_refused(tmp_path: Path, store: Path) -> None:
    config = describe(tmp_path, store, max_change=1e-5, resize_noise=0.0)
    donor, model = donor_state(config, tmp_path, {"shared_experts": 4, "task_experts": 1})
    beginning, grown = copy_with(config, tmp_path, donor, {"shared_experts": 1, "task_experts": 2})
    assert beginning.resized.refused is not None
    assert beginning.counts == {"shared_experts": 4, "task_experts.bright": 2, "task_experts.upper": 2}
    assert beginning.resized.settings["model.task_experts"] == 2
    assert difference_of(model, grown) < 1e-5


def test_reinitialising_forgets_the_donor_but_not_the_time(tmp_path: Path, store: Path) -> None:
    config = describe(tmp_path, store, resize="reinitialise")
    donor, model = donor_state(config, tmp_path, {"shared_experts": 2, "task_experts": 1})
    beginning, fresh = copy_with(config, tmp_path, donor, {"shared_experts": 3})
    assert difference_of(model, fresh) > 1e-3
    assert beginning.leg.start is not None
    state = PortableState.read(beginning.leg.start)
    assert (state.progress.epoch, dict(state.moments)) == (2, {})

"""A search whose members share one GPU, a quarter each: every member is one rank, which needs no NCCL between two on a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from tiny import SEED, make_store
from tiny_search import load_search, write_search

from mtids_dist.tune import History, search

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
MEMBERS, GENERATIONS, CPUS = 4, 2, 4


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def quarter_search(path: Path, store: Path, share: float) -> Path:
    """Write a search whose members have one rank each, with a share of a GPU (0: on CPUs)."""
    write_search(path, store, epochs=GENERATIONS, members=MEMBERS)
    tree = yaml.safe_load(path.read_text())
    tree["train"]["scale"]["gpus_per_worker"] = share
    path.write_text(yaml.safe_dump(tree))
    return path


def test_members_on_quarter_gpus_train(local_ray: None, tmp_path: Path, device: str) -> None:
    print(f"seed {SEED}")
    store = make_store(tmp_path / "store")
    share = 0.25 if device == "cuda" else 0.0
    config, folder = load_search(quarter_search(tmp_path / "search.yaml", store, share))
    search(config.job(), config.tune, folder, config.resolved(), on_line=lambda line: None)
    history = History.open(folder.history)
    assert [line["error"] for line in history.results] == [None] * (MEMBERS * GENERATIONS)
    started = history.of("started")[0]
    assert started["hosts"] == MEMBERS, "all train at a time"
    assert started["resources"].get("GPU", 0.0) == share
    assert folder.best.weights.exists()

"""A search small enough to run in a minute, on the tiny store of the training tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tiny import write_description

from mtids_dist.config import RunConfig, load_run
from mtids_dist.tune import SearchFolder

SPACE = {
    "model.shared_experts": [1, 2, 3, 4],
    "model.task_experts": [1, 2, 3],
    "train.optimizer.learning_rate": {"low": 1.0e-3, "high": 1.0e-2, "log": True},
    "balance.options.tau": {"low": 0.0, "high": 1.0},
}


def write_search(path: Path, store: Path, *, epochs: int = 5, workers: int = 1, **tune: Any) -> Path:
    """A run description of a search; `tune` are its settings."""
    write_description(path, store, epochs=epochs, scale={"workers": workers, "zero_stage": 2})
    tree = yaml.safe_load(path.read_text())
    tree["tune"] = {"members": 4, "generations": epochs, "space": SPACE, **tune}
    path.write_text(yaml.safe_dump(tree))
    return path


def load_search(path: Path) -> tuple[RunConfig, SearchFolder]:
    """The description, and its folder made."""
    config = load_run(path)
    folder = SearchFolder(config.run)
    folder.path.mkdir(parents=True)
    folder.versions.write_text("{}")
    return config, folder

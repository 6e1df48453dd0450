from __future__ import annotations

import numpy as np
import pytest
import torch

from mtids_dist.evaluate import fuse, product_parts
from mtids_dist.tasks import MTIDS_TASKS, Task

SMALL = {
    "joint": Task(column=("station", "metastasis"), classes=(("7", "8"), "binary")),
    "region": Task(column="station", classes=("7", "8")),
    "metastasis": Task(column="metastasis", classes="binary"),
}


def test_products_find_the_tasks_of_their_columns() -> None:
    assert product_parts(MTIDS_TASKS) == {"joint": ("region", "metastasis")}
    assert product_parts({name: MTIDS_TASKS[name] for name in ("joint", "region")}) == {}
    other_order = {**SMALL, "region": Task(column="station", classes=("8", "7"))}
    assert product_parts(other_order) == {}, "the same classes in another order are other class indices"
    zones = {**MTIDS_TASKS, "region": Task(column="station", classes="zones")}
    assert product_parts(zones) == {}


def test_the_parts_can_overrule_the_product() -> None:
    # The joint head alone says 7+1 (index 1); the region head is sure of 8, so 8+1 (index 3) must win.
    own = {"joint": [[0.1, 0.4, 0.2, 0.3]], "region": [[0.2, 0.8]], "metastasis": [[0.5, 0.5]]}
    fused = fuse(SMALL, own)["joint"]
    products = np.array([0.1 * 0.2 * 0.5, 0.4 * 0.2 * 0.5, 0.2 * 0.8 * 0.5, 0.3 * 0.8 * 0.5])
    np.testing.assert_allclose(fused, [products / products.sum()])
    assert fused.argmax() == 3


@pytest.mark.parametrize("seed", range(5))
def test_fused_probabilities_are_normalised_products(seed: int) -> None:
    generator = np.random.default_rng(seed)
    own = {name: generator.dirichlet(np.ones(task.num_classes), 7) for name, task in MTIDS_TASKS.items()}
    fused = fuse(MTIDS_TASKS, {name: torch.tensor(p) for name, p in own.items()})["joint"]
    expected = own["joint"] * np.repeat(own["region"], 2, axis=1) * np.tile(own["metastasis"], (1, 11))
    np.testing.assert_allclose(fused, expected / expected.sum(1, keepdims=True))


def test_zero_probabilities_stay_finite() -> None:
    own = {"joint": [[0.0, 1.0, 0.0, 0.0]], "region": [[0.0, 1.0]], "metastasis": [[0.0, 1.0]]}
    assert np.isfinite(fuse(SMALL, own)["joint"]).all()

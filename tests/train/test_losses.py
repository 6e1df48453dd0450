"""Losses over the global batch: parts of a batch on several ranks add up to the loss of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mtids_dist.tasks import MTIDS_TASKS, Task
from mtids_dist.train.config import Imbalance, LossConfig
from mtids_dist.train.losses import TaskLosses, absent_classes

TASKS = {"a": Task(column="a", classes=["x", "y", "z"], loss_weight=2.0), "b": Task(column="b", classes="binary")}
COUNTS = {"a": np.array([10, 30, 0]), "b": np.array([5, 15])}


def batch(rows: int = 12) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = {"a": torch.randn(rows, 3, generator=generator), "b": torch.randn(rows, 2, generator=generator)}
    labels = {"a": torch.randint(-1, 3, (rows,), generator=generator), "b": torch.randint(-1, 2, (rows,), generator=generator)}
    labels["b"][rows // 2 :] = -1
    return logits, labels


@pytest.mark.parametrize("imbalance", list(Imbalance))
def test_mean_over_ranks_is_the_loss_of_the_global_batch(imbalance: Imbalance) -> None:
    losses = TaskLosses(TASKS, COUNTS, LossConfig(imbalance=imbalance))
    logits, labels = batch()
    whole = losses(logits, labels, losses.label_mass(labels), shares=1)
    parts = [slice(0, 5), slice(5, 12)]
    mass = sum(losses.label_mass({t: y[part] for t, y in labels.items()}) for part in parts)
    on_ranks = [losses({t: z[p] for t, z in logits.items()}, {t: y[p] for t, y in labels.items()}, mass, shares=2) for p in parts]
    for task in TASKS:
        assert torch.allclose(torch.stack([found[task] for found in on_ranks]).mean(), whole[task])


def test_it_is_torch_s_cross_entropy_over_known_labels() -> None:
    losses = TaskLosses(TASKS, COUNTS, LossConfig())
    logits, labels = batch()
    found = losses(logits, labels, losses.label_mass(labels), shares=1)
    assert torch.allclose(found["a"], 2.0 * cross_entropy(logits["a"], labels["a"], ignore_index=-1))


def test_no_label_anywhere_is_a_zero_that_hangs_on_the_graph() -> None:
    losses = TaskLosses(TASKS, COUNTS, LossConfig(imbalance=Imbalance.CLASS_WEIGHTS))
    logits, labels = batch()
    logits = {task: z.requires_grad_() for task, z in logits.items()}
    labels["b"][:] = -1
    found = losses(logits, labels, losses.label_mass(labels), shares=1)
    assert found["b"].item() == 0
    (gradient,) = torch.autograd.grad(found["b"], logits["b"])
    assert (gradient == 0).all()


def test_class_weights_have_mean_one_over_the_training_labels_and_stay_finite() -> None:
    losses = TaskLosses(TASKS, COUNTS, LossConfig(imbalance=Imbalance.CLASS_WEIGHTS))
    weight = losses.get_buffer("_weight_1")
    assert (weight * torch.tensor([0.25, 0.75])).sum() == pytest.approx(1.0)
    assert weight[0] / weight[1] == pytest.approx(3.0)
    assert losses.get_buffer("_weight_0").isfinite().all(), "a class without labels must not become infinite"


def test_logit_adjustment_adds_log_priors_in_training() -> None:
    plain, adjusted = (TaskLosses(TASKS, COUNTS, LossConfig(imbalance=i)) for i in (Imbalance.NONE, Imbalance.LOGIT_ADJUSTMENT))
    logits, labels = batch()
    mass = plain.label_mass(labels)
    shifted = {**logits, "b": logits["b"] + torch.tensor([0.25, 0.75]).log()}
    assert torch.allclose(adjusted(logits, labels, mass, 1)["b"], plain(shifted, labels, mass, 1)["b"])


def test_absent_classes_are_named() -> None:
    assert absent_classes(TASKS, COUNTS) == {"a": ["z"]}


def test_joint_labels_are_the_product() -> None:
    task = MTIDS_TASKS["joint"]
    encoded = task.encode({"station": ["4R", "10R", None, "7"], "metastasis": [1, 1, 0, None]})
    assert [None if c < 0 else task.class_names[c] for c in encoded] == ["4R+1", None, None, None]

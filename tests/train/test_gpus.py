"""What a cluster's GPUs can't train is said in a line before a worker starts."""

from __future__ import annotations

import pytest

from mtids_dist.errors import InputError
from mtids_dist.train import check_gpus
from mtids_dist.train.config import ScaleConfig


@pytest.mark.parametrize(
    ("scale", "gpus", "where"),
    [
        ({"workers": 4}, 1, "train.scale.workers"),
        ({"workers": 2, "gpus_per_worker": 0.5}, 1, "train.scale.gpus_per_worker"),
        ({"workers": 2, "gpus_per_worker": 0.5}, 0, "train.scale.gpus_per_worker"),
        ({"workers": 2, "gpus_per_worker": 1.5}, 4, "train.scale.gpus_per_worker"),
    ],
)
def test_workers_without_a_gpu_of_their_own_are_refused(scale: dict[str, float], gpus: float, where: str) -> None:
    with pytest.raises(InputError, match=where) as refused:
        check_gpus(ScaleConfig.model_validate(scale), gpus)
    assert len(str(refused.value).splitlines()) == 1
    assert f"{scale['workers']} workers" in str(refused.value)


@pytest.mark.parametrize(
    ("scale", "gpus"),
    [
        ({"workers": 1, "gpus_per_worker": 0.25}, 1),
        ({"workers": 4}, 0),
        ({"workers": 4, "gpus_per_worker": 0}, 1),
        ({"workers": 4}, 4),
        ({"workers": 2, "gpus_per_worker": 1}, 2),
    ],
)
def test_one_worker_a_gpu_or_none_at_all_is_taken(scale: dict[str, float], gpus: float) -> None:
    check_gpus(ScaleConfig.model_validate(scale), gpus)

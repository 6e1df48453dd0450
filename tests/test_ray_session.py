"""The Ray that a verb works on: whether others leave room on it."""

from __future__ import annotations

import math

import pytest

from mtids_dist.ray_session import crowded, ray_session


@pytest.mark.slow
def test_work_that_finds_too_few_free_cpus_is_told() -> None:
    import ray
    from ray.util.placement_group import placement_group

    with ray_session(None, workers=3):
        everything = ray.cluster_resources()["CPU"]
        assert crowded(2) == crowded(math.inf) == "", "nobody else is there"
        ray.get(placement_group([{"CPU": everything - 1.5}]).ready())
        assert crowded(0.5) == ""
        assert crowded(1) != "", "a CPU to read data is wanted, too"
        assert (
            crowded(2)
            == f"1.5 of the cluster's {everything:g} CPUs are free, this wants 3: it may stand still until other work ends"
        )
        assert crowded(math.inf) != ""

"""The space of a search: what may be searched, what points mean, and limits that are known before anything is built."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mtids_dist.config import RunConfig
from mtids_dist.errors import InputError
from mtids_dist.tune import SearchConfig, check_space
from mtids_dist.tune.space import counts_of, first_points, job_at, limits, memory_of

TASKS = {"a": {"column": "a", "classes": "binary"}, "b": {"column": "b", "classes": "binary"}}
MODEL = {"channels": [8], "expert_width": 8, "context_width": 8}


def run(**settings: Any) -> RunConfig:
    return RunConfig.model_validate({"tasks": TASKS, "model": MODEL, "train": {"epochs": 4}, **settings})


def search(**settings: Any) -> SearchConfig:
    return SearchConfig(**{"members": 4, "generations": 2, **settings})


def test_points_are_drawn_within_the_space_by_the_seed() -> None:
    config = search(space={"model.shared_experts": [1, 2, 4], "train.optimizer.learning_rate": {"low": 1e-4, "high": 1e-2}})
    points = first_points(run().job(), config, number=50)
    assert {point["model.shared_experts"] for point in points} == {1, 2, 4}
    assert all(1e-4 <= point["train.optimizer.learning_rate"] <= 1e-2 for point in points)
    assert points == first_points(run().job(), config, number=50)
    assert points != first_points(run(seed=1).job(), config, number=50)


def test_a_logarithmic_range_gives_each_decade_its_share() -> None:
    config = search(space={"train.optimizer.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}})
    rates = [point["train.optimizer.learning_rate"] for point in first_points(run().job(), config, number=400)]
    assert 120 < sum(rate < 1e-3 for rate in rates) < 280


def test_initial_settings_are_kept_and_the_rest_is_drawn() -> None:
    config = search(
        space={"model.shared_experts": [1, 2], "balance.options.tau": {"low": 0, "high": 1}},
        initial=[{"model.shared_experts": 2}],
    )
    first = first_points(run().job(), config, number=4)[0]
    assert first["model.shared_experts"] == 2
    assert 0 <= first["balance.options.tau"] <= 1


def test_counts_of_one_task_leave_the_others() -> None:
    job = job_at(run().job(), {"model.task_experts.b": 3, "model.shared_experts": 4})
    assert counts_of(job.model, job) == {"shared_experts": 4, "task_experts.a": 1, "task_experts.b": 3}


def test_limits_refuse_what_is_too_large_before_it_is_built() -> None:
    job = run().job()
    small, large = ({"model.shared_experts": count} for count in (1, 8))
    parameters = job_at(job, small).model.num_params(job.num_classes).total
    limit = limits(job, search(max_parameters=parameters))
    assert limit(small) == ""
    assert f"max_parameters is {parameters:,}" in limit(large)
    assert "MiB" in limits(job, search(max_memory_mib=1))({"model.shared_experts": 200})


def test_memory_is_states_and_a_gradient_a_task() -> None:
    job = run().job()
    count = job.model.num_params(job.num_classes)
    assert memory_of(job.model, job) == pytest.approx((16 * count.total + 4 * 2 * count.shared) / 2**20)


def test_the_first_members_are_within_the_limits() -> None:
    job, space = run().job(), {"model.shared_experts": [1, 2, 4, 8]}
    most = job_at(job, {"model.shared_experts": 2}).model.num_params(job.num_classes).total
    points = first_points(job, search(space=space, max_parameters=most), number=40)
    assert {point["model.shared_experts"] for point in points} == {1, 2}
    with pytest.raises(InputError, match="max_parameters is 10"):
        first_points(job, search(space=space, max_parameters=10), number=1)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"model.shared_expert": [1]}, r"unknown setting model.shared_expert, did you mean model.shared_experts"),
        ({"model.task_experts.c": [1, 2]}, r"unknown setting model.task_experts.c"),
        ({"train.optimizer.learning_rate": {"low": -1, "high": 1}}, r"train.optimizer.learning_rate"),
        ({"data.fold": [0, 1]}, r"data.fold can't be searched"),
        ({"train.scale.workers": [1, 2]}, r"train.scale.workers can't be searched"),
        ({"model.expert_width": [8, 16]}, r"pbt can't search model.expert_width"),
        ({"model.shared_experts": {"low": 1, "high": 4}}, r"model.shared_experts takes whole numbers.*found low 1, high 4"),
        ({"data.batch_size": {"low": 8, "high": 16}}, r"data.batch_size takes whole numbers"),
        ({"data.shuffle_rows": {"low": 1000, "high": 1001000}}, r"data.shuffle_rows takes whole numbers"),
    ],
)
def test_a_space_that_can_not_be_searched_is_refused(space: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_space(run().job(), search(space=space))


def test_limits_that_nothing_is_within_are_refused_before_anything_starts() -> None:
    with pytest.raises(InputError, match="max_parameters is 10"):
        check_space(run().job(), search(space={"model.shared_experts": [1, 2]}, max_parameters=10))


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ({"model.shared_experts": 7}, "begins outside the space; found 7; allowed: 1, 2"),
        ({"train.optimizer.learning_rate": 5.0}, "begins outside the space; found 5.0; allowed: 0.001 to 0.01"),
    ],
)
def test_members_begin_inside_the_space(point: dict[str, Any], told: str) -> None:
    space = {"model.shared_experts": [1, 2], "train.optimizer.learning_rate": {"low": 1e-3, "high": 1e-2}}
    with pytest.raises(InputError, match=told):
        check_space(run().job(), search(space=space, initial=[point]))


def test_a_population_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="nobody to copy"):
        check_space(run().job(), search(members=1))


def test_asha_may_search_what_a_copy_could_not_change() -> None:
    check_space(run().job(), search(scheduler="asha", space={"model.expert_width": [8, 16]}))


def test_epochs_are_shared_out_over_generations() -> None:
    with pytest.raises(InputError, match=r"found 4.*multiple of tune.generations, 3"):
        check_space(run().job(), search(generations=3))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"space": {"model.shared_experts": [4, 2, 1]}}, "rising list"),
        ({"space": {}}, "at least one setting"),
        ({"space": {"model.shared_experts": [True, 2]}}, "whole numbers from 1"),
        ({"space": {"model.shared_experts": 3}}, "list\n"),
        ({"space": {"model.shared_experts": [0, 1]}}, "whole numbers from 1"),
        ({"space": {"model.task_experts": [1], "model.task_experts.a": [1]}}, "not both"),
        ({"space": {"balance.options.tau": {"low": 1, "high": 0}}}, "rise"),
        ({"space": {"balance.options.tau": {"low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"initial": [{"data.fold": 1}]}, "not searched"),
        ({"members": 1, "initial": [{}, {}]}, "at most 1"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        search(**settings)

"""Whole searches on a real Ray with two CPUs: copying, resizing, failures, interruption, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from tiny import make_store
from tiny_search import SPACE, load_search, write_search

from mtids_dist.config import load_run
from mtids_dist.errors import InputError, StoppedError, WorkFailedError
from mtids_dist.train import read_lines
from mtids_dist.trained import open_trained
from mtids_dist.tune import History, SearchFolder, search
from mtids_dist.tune.driver import room
from mtids_dist.tune.history import Replay

pytestmark = pytest.mark.slow
LIMIT_S = 300
CPUS = 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def run_search(description: Path) -> tuple[dict[str, Any], SearchFolder, History]:
    config, folder = load_search(description)
    winner = search(config.job(), config.tune, folder, config.resolved(), on_line=lambda line: None)
    return winner, folder, History.open(folder.history)


def assert_nothing_is_left() -> None:
    """Every CPU is free again, and no process of the search lives."""
    end = time.monotonic() + 30
    ours = ("ray::Host", "ray::ResourceTrainable", "ray::RayTrainWorker", "ray::TrainController", "ray::SplitCoordinator")
    while ray.available_resources().get("CPU") != CPUS or processes(*ours):
        assert time.monotonic() < end, (ray.available_resources(), processes(*ours))
        time.sleep(0.2)


def processes(*titles: str) -> list[psutil.Process]:
    """Ray's processes that are called so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(titles):
                found.append(process)
    return found


def grown(event: dict[str, Any]) -> bool:
    return any(after > event["counts_before"][name] for name, after in event["counts_after"].items())


def shrunk(event: dict[str, Any]) -> bool:
    return any(after < event["counts_before"][name] for name, after in event["counts_after"].items())


def test_a_population_copies_resizes_and_leaves_nothing_behind(two_cpus: None, store: Path, tmp_path: Path) -> None:
    # Everybody begins with few experts, so that copies grow; half of the population copies, so that there are many.
    initial = [{"model.shared_experts": count, "model.task_experts": 1} for count in (1, 2, 1, 2)]
    description = write_search(tmp_path / "search.yaml", store, initial=initial, quantile=0.5)
    config = load_run(description)
    limit = replace(config.model, shared_experts=3, task_experts=2).num_params(config.num_classes).total
    write_search(description, store, initial=initial, quantile=0.5, max_parameters=limit)
    winner, folder, history = run_search(description)
    assert_nothing_is_left()

    results = history.results
    assert sorted((line["generation"], line["member"]) for line in results) == [(g, m) for g in range(1, 6) for m in range(4)]
    assert max(line["parameters"] for line in results) <= limit
    assert winner["score"] == min(line["score"] for line in results)
    assert winner["score"] < min(line["score"] for line in results if line["generation"] == 1)

    lineage = json.loads(folder.lineage.read_text())
    assert len(lineage) == 8  # two copies after each generation but the last
    of_growth = [event for event in lineage if grown(event) and not shrunk(event)]
    assert of_growth
    for event in of_growth:
        assert event["loss_after"] == pytest.approx(event["loss_before"], rel=0.02)
    for event in lineage:
        assert (event["change"] is not None) == (event["counts_before"] != event["counts_after"] or event["refused"] is not None)
        assert event["counts_after"]["shared_experts"] in SPACE["model.shared_experts"]
        assert 0 <= event["settings_after"]["balance.options.tau"] <= 1

    assert history.of("started")[0]["hosts"] == 2
    states = {str(path.relative_to(folder.path)) for path in folder.path.glob("generations/*/*/state")}
    assert states == history.needed_states()
    assert not folder.tune.exists()

    trained = open_trained(folder.best.path)
    assert trained.config.model.shared_experts == winner["counts"]["shared_experts"]
    steps = [line["step"] for line in read_lines(folder.best.metrics) if line["kind"] == "step"]
    assert steps == list(range(1, winner["step"] + 1))


def test_the_winner_trains_on_with_more_epochs(store: Path, tmp_path: Path) -> None:
    description = write_search(tmp_path / "search.yaml", store, epochs=2, members=2)
    assert verb("tune", str(description)).returncode == 0
    best = tmp_path / "search" / "best"
    assert "has finished" in verb("train", str(best / "run.yaml")).stdout
    epochs = len([line for line in read_lines(best / "metrics.jsonl") if line["kind"] == "validation"])
    done = verb("train", str(best / "run.yaml"), "--set", f"train.epochs={epochs + 1}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resumed at step {12 * 2 * epochs}" in done.stdout
    assert verb("evaluate", str(best), str(store)).returncode == 0
    again = verb("tune", str(description), "--json")
    assert "has finished" in again.stderr
    assert json.loads(again.stdout)["best"] == str(best)
    refused = verb("tune", str(best / "run.yaml"), "--set", "train.epochs=4")
    assert refused.returncode == 2
    assert "of another verb" in refused.stderr


def test_a_killed_search_goes_on_with_the_same_population(store: Path, tmp_path: Path) -> None:
    description = write_search(tmp_path / "search.yaml", store, generations=5, quantile=0.5)
    history_path = tmp_path / "search" / "history.jsonl"
    driver = subprocess.Popen(command("tune", str(description)), stdout=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + LIMIT_S
    while not (history_path.exists() and trained(history_path, generation=3) >= 1):
        assert driver.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = History.open(history_path)
    assert before.closed == 2
    lines = before.lines

    assert verb("tune", str(description)).returncode == 0
    after = History.open(history_path)
    assert after.lines[: len(lines)] == lines
    decided = {line["member"]: line for line in lines if line["event"] == "copy" and line["generation"] == 2}
    for member in range(4):
        third = [line for line in after.results if (line["member"], line["generation"]) == (member, 3)]
        assert len(third) == 1
        second = decided.get(member) or next(r for r in lines if r["event"] == "result" and r["id"] == third[0]["start"]["id"])
        assert third[0]["settings"] == second["settings"]
        assert third[0]["start"]["member"] == (decided[member]["start"]["member"] if member in decided else member)
    ids = [line["id"] for line in after.results]
    assert len(ids) == len(set(ids)) == 20


def test_the_stop_flag_ends_a_search_that_goes_on_later(store: Path, tmp_path: Path) -> None:
    description = write_search(tmp_path / "search.yaml", store, epochs=3, members=2)
    folder = SearchFolder(tmp_path / "search")
    driver = subprocess.Popen(command("tune", str(description)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + LIMIT_S
    while not (folder.history.exists() and trained(folder.history, generation=1) >= 1):
        assert driver.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    folder.stop_flag.touch()
    output, _ = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 3, output
    assert "same command goes on" in output
    kept = History.open(folder.history).results
    assert kept, "what was trained is not lost"

    assert verb("tune", str(description)).returncode == 0
    results = History.open(folder.history).results
    assert results[: len(kept)] == kept
    assert sorted((line["generation"], line["member"]) for line in results) == [(g, m) for g in (1, 2, 3) for m in (0, 1)]


def test_a_search_that_is_stopped_drops_nobody(two_cpus: None, store: Path, tmp_path: Path) -> None:
    config, folder = load_search(write_search(tmp_path / "search.yaml", store, epochs=3, members=2))
    with pytest.raises(StoppedError):
        search(config.job(), config.tune, folder, config.resolved(), on_line=lambda line: folder.stop_flag.touch())
    # Tune goes on in its thread until it has given up every member, whose hosts are gone.
    for thread in threading.enumerate():
        if thread.name == "ray-tune":
            thread.join(LIMIT_S)
            assert not thread.is_alive()
    assert sorted(History.open(folder.history).starts(Replay.OPEN)) == [0, 1]


def test_members_that_fail_are_replaced_and_named(two_cpus: None, store: Path, tmp_path: Path) -> None:
    # A rate of 1e30 makes the first member's losses infinite, in every generation until it copies another.
    space = {**SPACE, "train.optimizer.learning_rate": {"low": 1e-3, "high": 1e30, "log": True}}
    rates = (1e30, 2e-3, 3e-3)
    initial = [{"train.optimizer.learning_rate": rate, "model.shared_experts": 1, "model.task_experts": 1} for rate in rates]
    told: list[dict[str, Any]] = []
    description = write_search(tmp_path / "search.yaml", store, epochs=3, members=3, space=space, initial=initial, resample=0.0)
    config, folder = load_search(description)
    winner = search(config.job(), config.tune, folder, config.resolved(), on_line=told.append)
    failed = [line for line in told if line["event"] == "result" and line["error"]]
    print([(line["member"], line["generation"], line["error"]) for line in failed])
    assert [(line["member"], line["generation"]) for line in failed] == [(0, 1)]
    assert "gradient" in failed[0]["error"] or "finite" in failed[0]["error"]
    replaced = [line for line in told if line["event"] == "result" and (line["member"], line["generation"]) == (0, 2)]
    assert replaced[0]["start"]["member"] in (1, 2)
    assert replaced[0]["score"] is not None
    assert winner["member"] in (0, 1, 2)
    assert_nothing_is_left()


def test_a_host_that_is_killed_comes_back(two_cpus: None, store: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_a_host(line: dict[str, Any]) -> None:
        if line["event"] == "result" and not killed:
            for process in processes("ray::Host.train")[:1]:
                process.kill()
                killed.append(process.pid)

    description = write_search(tmp_path / "search.yaml", store, epochs=3)
    config, folder = load_search(description)
    search(config.job(), config.tune, folder, config.resolved(), on_line=kill_a_host)
    assert killed
    history = History.open(folder.history)
    assert [line["error"] for line in history.results] == [None] * 12
    assert_nothing_is_left()


def test_a_member_whose_process_is_lost_too_often_is_dropped_and_named(two_cpus: None, store: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def kill_a_member(line: dict[str, Any]) -> None:
        told.append(line)
        if line["event"] == "closed" and line["generation"] == 1:
            end = time.monotonic() + LIMIT_S
            while not (waiting := processes("ray::ResourceTrainable.train")):
                assert time.monotonic() < end
                time.sleep(0.02)
            waiting[0].kill()

    description = write_search(tmp_path / "search.yaml", store, epochs=3, members=3, max_failures=0)
    config, folder = load_search(description)
    search(config.job(), config.tune, folder, config.resolved(), on_line=kill_a_member)
    (dropped,) = [line for line in told if line["event"] == "dropped"]
    last = [line["member"] for line in told if line["event"] == "result" and line["generation"] == 3]
    assert sorted([*last, dropped["member"]]) == [0, 1, 2]
    assert_nothing_is_left()


def test_training_that_fails_everywhere_ends_the_search(two_cpus: None, store: Path, tmp_path: Path) -> None:
    space = {"train.optimizer.learning_rate": {"low": 1e29, "high": 1e30}}
    description = write_search(tmp_path / "search.yaml", store, epochs=2, members=2, space=space)
    with pytest.raises(WorkFailedError, match="failed in every member"):
        run_search(description)
    assert_nothing_is_left()


@pytest.mark.parametrize("scheduler", ["asha", "random"])
def test_other_schedulers_spend_the_same_budget(two_cpus: None, store: Path, tmp_path: Path, scheduler: str) -> None:
    description = write_search(tmp_path / "search.yaml", store, epochs=4, members=3, scheduler=scheduler)
    _, _, history = run_search(description)
    assert len(history.results) == 12
    members = {line["member"] for line in history.results}
    assert len(members) > 3 if scheduler == "asha" else members == {0, 1, 2}
    assert_nothing_is_left()


def test_an_asynchronous_population_copies_too(two_cpus: None, store: Path, tmp_path: Path) -> None:
    description = write_search(tmp_path / "search.yaml", store, epochs=4, members=3, synchronous=False, quantile=0.5)
    _, folder, history = run_search(description)
    assert json.loads(folder.lineage.read_text())
    assert all(line["error"] is None for line in history.results)
    assert_nothing_is_left()


def test_members_of_two_ranks_train_as_others_do(two_cpus: None, store: Path, tmp_path: Path) -> None:
    description = write_search(tmp_path / "search.yaml", store, epochs=3, members=2, workers=2, quantile=0.5)
    winner, folder, history = run_search(description)
    assert len(history.results) == 6
    assert winner["step"] == 12 * winner["generation"]
    assert json.loads(folder.lineage.read_text())
    assert_nothing_is_left()


def test_a_cluster_without_room_is_refused(two_cpus: None, store: Path, tmp_path: Path) -> None:
    config, _ = load_search(write_search(tmp_path / "search.yaml", store))
    job = config.job()
    assert room(job, config.tune, {"CPU": 2.0})[:2] == (2, {"CPU": 0.5})
    assert room(job, config.tune, {"CPU": 64.0})[:2] == (4, {"CPU": 1.0})
    assert room(job, config.tune, {"CPU": 64.0})[2] == 64 // 4, "a host's threads, however few cores the driver has"
    quarter = job.train.scale.model_copy(update={"gpus_per_worker": 0.25})
    of_gpu = job.model_copy(update={"train": job.train.model_copy(update={"scale": quarter})})
    assert room(of_gpu, config.tune, {"CPU": 16.0, "GPU": 0.5})[:2] == (2, {"CPU": 1.0, "GPU": 0.25})
    with pytest.raises(InputError, match="no room for one member"):
        room(of_gpu, config.tune, {"CPU": 16.0})


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "mtids_dist", *words]


def verb(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=LIMIT_S, check=False)


def trained(history: Path, *, generation: int) -> int:
    lines = [json.loads(text) for text in history.read_text().splitlines(keepends=True) if text.endswith("\n")]
    return sum(line["event"] == "result" and line["generation"] == generation for line in lines)

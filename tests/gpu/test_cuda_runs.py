"""The shipped description trains, stops, goes on and is evaluated on a GPU; what can't train there is refused in a line."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from shipped import FOLDS, LIMIT_S, ROWS_A_FOLD, SEED, call, command, make_shipped_store, train_command
from torch import Tensor, nn

from mtids_dist import trained
from mtids_dist.train import RunFolder, read_lines

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
STEPS_AN_EPOCH = (FOLDS - 1) * ROWS_A_FOLD // 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    print(f"seed {SEED}")
    return make_shipped_store(tmp_path_factory.mktemp("shipped") / "store")


@pytest.fixture(scope="module")
def finished(store: Path, device: str) -> RunFolder:
    """Two epochs of the shipped description, by the command line."""
    folder = RunFolder(store.parent / "finished")
    done = call(train_command(folder.path, store, epochs=2, device=device))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def last_checkpoint(folder: RunFolder) -> Path:
    return max(path.parent for path in folder.checkpoints.glob("checkpoint_*/deepspeed"))


def devices_of(checkpoint: Path) -> set[str]:
    """Return the kinds of devices that the tensors of DeepSpeed's own files lay on when they were saved."""
    seen: set[str] = set()

    def note(storage: Any, location: str) -> Any:
        seen.add(location.split(":")[0])
        return storage

    for path in checkpoint.glob("deepspeed/*/*.pt"):
        torch.load(path, map_location=note, weights_only=False)
    return seen


def steps(folder: RunFolder) -> list[int]:
    lines = read_lines(folder.metrics) if folder.metrics.exists() else iter(())
    return [line["step"] for line in lines if line["kind"] == "step"]


def events(folder: RunFolder) -> list[dict[str, Any]]:
    return [line for line in read_lines(folder.metrics) if line["kind"] == "event"]


def wait_for_steps(folder: RunFolder, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LIMIT_S
    while len(steps(folder)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_shipped_description_trains_on_the_device(finished: RunFolder, device: str) -> None:
    assert steps(finished) == list(range(1, 2 * STEPS_AN_EPOCH + 1))
    assert finished.weights.exists()
    assert device in devices_of(last_checkpoint(finished))


def test_the_command_line_evaluates_it(finished: RunFolder, store: Path) -> None:
    done = call(command("evaluate", str(finished.path), str(store)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (finished.path / "evaluation.json").exists()


def test_evaluation_runs_the_trunk_once_a_batch_on_the_device(
    finished: RunFolder, store: Path, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passes: dict[str, list[str]] = {"network": [], "trunk": []}

    def watched(*args: Any) -> trained.Trained:
        found = open_trained(*args)
        _note(found.model, passes["network"])
        _note(found.model.trunk, passes["trunk"])
        return found

    open_trained = trained.open_trained
    monkeypatch.setattr(trained, "open_trained", watched)
    trained.evaluate_checkpoint(finished.path, store, split="validation", out=tmp_path, overrides=[])
    assert passes["network"]
    assert len(passes["trunk"]) == len(passes["network"])
    assert set(passes["trunk"]) == {device}


def _note(module: nn.Module, passes: list[str]) -> None:
    """Write down the kind of device of every input that a module is called with."""

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        passes.append(args[0].device.type)

    module.register_forward_pre_hook(hook)


def test_a_stopped_run_goes_on_from_its_checkpoint(store: Path, tmp_path: Path, device: str) -> None:
    folder = RunFolder(tmp_path / "stopped")
    words = train_command(folder.path, store, epochs=500, device=device)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_steps(folder, 3, process)
    folder.stop_flag.touch()
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3, output
    stopped = events(folder)[-1]
    assert stopped["event"] == "stopped"
    done = call(train_command(folder.path, store, epochs=stopped["step"] // STEPS_AN_EPOCH + 1, device=device))
    assert done.returncode == 0, done.stdout + done.stderr
    resumed = next(event for event in events(folder) if event["event"] == "resumed")
    assert resumed["step"] == stopped["step"]
    assert steps(folder) == list(range(1, (stopped["step"] // STEPS_AN_EPOCH + 1) * STEPS_AN_EPOCH + 1)), "every step once"
    assert device in devices_of(last_checkpoint(folder))


def test_two_workers_on_one_gpu_are_refused_before_they_start(store: Path, tmp_path: Path, device: str) -> None:
    shared = ("--set", "train.scale.workers=2", "--set", "train.scale.gpus_per_worker=0.5")
    done = call([*train_command(tmp_path / "refused", store, epochs=1, device=device), *shared])
    assert done.returncode == 2, done.stdout + done.stderr
    told = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(told) == 1, told
    assert "train.scale.gpus_per_worker" in told[0]
    assert not RunFolder(tmp_path / "refused").metrics.exists(), "no worker has started"

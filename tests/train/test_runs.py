"""Whole runs through the command line, on a real Ray: killed workers, stops, resumption, refusals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tiny import make_store, write_description

from mtids_dist.train import RunFolder, read_lines

pytestmark = pytest.mark.slow
LIMIT_S = 240
COMPILER = re.compile(r"^(cc|c89|c99|c\+\+|cpp|ninja|nvcc)$|gcc|g\+\+|clang")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("tiny") / "store")


def start(description: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mtids_dist", "train", str(description), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def events(folder: RunFolder) -> list[dict[str, object]]:
    return [line for line in read_lines(folder.metrics) if line["kind"] == "event"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def steps(folder: RunFolder) -> list[int]:
    return [line["step"] for line in read_lines(folder.metrics) if line["kind"] == "step"] if folder.metrics.exists() else []


def train_workers(driver: int) -> list[psutil.Process]:
    """Ray's workers that hold a rank: children of the raylet, which is a child of the driver."""
    children = psutil.Process(driver).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def test_a_killed_worker_is_replaced_and_the_run_finishes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", rows_per_fold=240)  # epochs long enough to be hit in their midst
    description = write_description(tmp_path / "killed.yaml", store, epochs=4)
    folder = RunFolder(tmp_path / "killed")
    process = start(description)
    per_epoch = 2 * 240 // 2 // 4
    # Ray takes note of a checkpoint some time after its files are there: with two of them, the first is safe.
    wait_for(lambda: len(list(folder.checkpoints.glob("checkpoint_2*"))) >= 2 and steps(folder)[-1] % per_epoch > 0, process)
    train_workers(process.pid)[-1].send_signal(signal.SIGKILL)
    code, output = finish(process)
    assert code == 0, output
    names = [event["event"] for event in events(folder)]
    assert names == ["started", "first step", "worker lost", "rewound", "resumed", "first step", "finished"], output
    (resumed,) = (event for event in events(folder) if event["event"] == "resumed")
    assert resumed["step"] > 0, "from a checkpoint, not from the start"
    assert resumed["step"] % per_epoch == 0
    assert steps(folder) == list(range(1, 4 * per_epoch + 1)), "every step once"


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(store: Path, tmp_path: Path) -> None:
    description = write_description(tmp_path / "stopped.yaml", store, epochs=40, checkpoint_every=40)
    folder = RunFolder(tmp_path / "stopped")
    process = start(description)
    wait_for(lambda: len(steps(folder)) > 3, process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 3, output
    assert "same command goes on" in output
    stopped = events(folder)[-1]
    assert stopped["event"] == "stopped"
    assert list(folder.checkpoints.glob("checkpoint_*/portable/weights.safetensors"))
    code, output = finish(start(description, "--set", "train.epochs=6", "--set", "train.scale.workers=1"))
    assert code == 0, output
    assert next(event for event in events(folder) if event["event"] == "resumed")["step"] == stopped["step"]
    assert folder.weights.exists()
    code, output = finish(start(description, "--set", "train.epochs=6", "--set", "train.scale.workers=1"))
    assert (code, "has finished" in output) == (0, True)


@pytest.mark.long
def test_the_stop_flag_stops_too(store: Path, tmp_path: Path) -> None:
    description = write_description(tmp_path / "flag.yaml", store, epochs=60, checkpoint_every=60)
    folder = RunFolder(tmp_path / "flag")
    process = start(description)
    wait_for(lambda: len(steps(folder)) > 3, process)
    folder.stop_flag.touch()
    code, output = finish(process)
    assert code == 3, output
    assert list(folder.checkpoints.glob("checkpoint_*/portable/state.json"))


def test_it_learns_and_says_so(store: Path, tmp_path: Path) -> None:
    description = write_description(tmp_path / "learns.yaml", store, epochs=5, select="best", optimizer={"learning_rate": 0.01})
    code, output = finish(start(description))
    assert code == 0, output
    assert "Traceback" not in output
    lines = list(read_lines(RunFolder(tmp_path / "learns").metrics))
    validation = [line for line in lines if line["kind"] == "validation"]
    assert validation[-1]["metrics"]["bright"]["n"] < 48, "missing labels are not counted"
    assert validation[-1]["metrics"]["upper"]["n"] == 48, "the whole fold is"
    assert validation[-1]["metrics"]["bright"]["auc"] > 0.95
    step = next(line for line in lines if line["kind"] == "step")
    assert set(step["weights"]) == {"bright", "upper"}
    assert step["cosines"][0][0] == pytest.approx(1.0, abs=1e-6)
    assert 0 <= step["data_wait_share"] <= 1
    evaluated = subprocess.run(
        [sys.executable, "-m", "mtids_dist", "evaluate", str(tmp_path / "learns"), str(store)], capture_output=True, text=True
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "mean AUC" in evaluated.stdout
    assert (tmp_path / "learns" / "evaluation.json").exists()


def test_an_error_in_the_work_is_one_line_and_is_not_tried_again(store: Path, tmp_path: Path) -> None:
    description = write_description(
        tmp_path / "nan.yaml", store, optimizer={"name": "sgd", "learning_rate": 1e30, "warmup_share": 0}
    )
    code, output = finish(start(description))
    assert code == 1, output
    assert "not finite" in output
    assert "Traceback" not in output
    assert "worker lost" not in [event["event"] for event in events(RunFolder(tmp_path / "nan"))]


def test_no_compiler_is_needed(store: Path, tmp_path: Path) -> None:
    """DeepSpeed would compile a shared-memory collective at its first start, and die where there is no compiler."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in folder.iterdir() if folder.is_dir() else ():
            if not COMPILER.search(program.name) and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    assert shutil.which("c++", path=str(tools)) is None
    description = write_description(tmp_path / "bare.yaml", store, epochs=1)
    command = [sys.executable, "-m", "mtids_dist", "train", str(description)]
    environment = {**os.environ, "PATH": str(tools), "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr

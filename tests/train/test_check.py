"""`train --check`: everything is built and one step is taken, nothing is written, and what can't work is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from tiny import SIDE, make_store, write_description
from typer.testing import CliRunner

from mtids_dist.cli import app
from mtids_dist.config import load_run
from mtids_dist.console import rehearsal_table
from mtids_dist.data import Split, normalise, open_store, sample_batch
from mtids_dist.errors import InputError
from mtids_dist.submit import call_of
from mtids_dist.train import MemoryEstimate, TrainJob, rehearse_here
from mtids_dist.train import packages as packages_module
from mtids_dist.train import rehearsal as rehearsal_module
from mtids_dist.train.engine import base_optimizer
from mtids_dist.train.learner import Learner
from mtids_dist.train.network import build_network
from mtids_dist.train.packages import folder_of, version_of

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")
SHAPE = (SIDE, SIDE, SIDE)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mtids_dist", *words], capture_output=True, text=True, timeout=300)


def job_of(*overrides: str, config: str = "tune-demo.yaml") -> TrainJob:
    return load_run(CONFIGS / config, overrides).job()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_description(tmp_path / "tiny.yaml", make_store(tmp_path / "store"))


# The memory estimate


def really_saved(network: torch.nn.Module, crops: torch.Tensor) -> int:
    """By addresses of memory that is really there."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers(), crops)}
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        network(crops)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for address, size in storages.items() if address not in own)


@pytest.mark.parametrize("model", ["model.trunk=small", "model.routing=hard", "model.trunk=resnet10"])
def test_activations_are_what_a_forward_really_saves(model: str) -> None:
    job = job_of(model, "data.batch_size=6", "train.scale.micro_batches=2")
    network, crops = build_network(job).train(), torch.zeros(3, 1, *SHAPE)
    assert MemoryEstimate.of(job, SHAPE, CPU).activations == really_saved(network, crops)


def test_bf16_keeps_half_but_for_the_gates() -> None:
    wide, narrow = (
        MemoryEstimate.of(job_of("data.crop=32", f"train.scale.precision={precision}"), (32, 32, 32), CPU).activations
        for precision in ("fp32", "bf16")
    )
    assert wide / 2 <= narrow < 0.6 * wide


def state_bytes(job: TrainJob) -> tuple[int, int]:
    """What DeepSpeed's optimizer holds besides the network after a step, and what the estimate says."""
    material = rehearsal_module._Material.of(job, SHAPE, rows=4)
    learner = Learner(job, material.counts, build_network(job), batch_size=4, total_steps=4)
    learner.step(material.batch)
    optimizer = base_optimizer(learner.engine)
    moments = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t) and t.dim()]
    masters = [p for group in optimizer.param_groups for p in group["params"]] if job.train.scale.running_stage else []
    masters += getattr(learner.engine.optimizer, "fp32_partitioned_groups_flat", []) if job.train.scale.running_stage == 3 else []
    held = {tensor.data_ptr(): tensor.nbytes for tensor in (*moments, *masters) if tensor.numel()}
    return sum(held.values()), MemoryEstimate.of(job, SHAPE, CPU).optimizer


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_optimizer_states_are_what_deepspeed_really_holds(stage: int) -> None:
    job = job_of(f"train.scale.zero_stage={stage}", "data.batch_size=4", "model.channels=[8]", "model.expert_width=8")
    [(held, estimated)] = run_ranks(state_bytes, 1, job)
    assert held == pytest.approx(estimated, rel=0.01)


def test_states_shrink_with_workers_as_zero_cuts_them() -> None:
    def parts(workers: int, stage: int) -> dict[str, int]:
        return MemoryEstimate.of(job_of(f"train.scale.workers={workers}", f"train.scale.zero_stage={stage}"), SHAPE, CPU).parts

    assert parts(4, 0) | {"balancer": 0} == parts(1, 0) | {"balancer": 0}
    assert parts(4, 0)["balancer"] > parts(1, 0)["balancer"], "gradients on their way to the other workers"
    assert parts(4, 2)["optimizer"] == pytest.approx(parts(1, 2)["optimizer"] / 4, rel=1e-4)
    assert parts(4, 3)["weights"] < parts(1, 3)["weights"]


def test_the_largest_batch_that_is_named_fits_and_the_next_does_not() -> None:
    job = job_of("data.batch_size=1000000", "train.scale.micro_batches=2")
    available = MemoryEstimate.of(job_of("data.batch_size=100"), SHAPE, CPU).total
    with pytest.raises(
        InputError, match=r"^data.batch_size: .*; found 1000000 crops, about .* GiB a worker; allowed: at most"
    ) as told:
        MemoryEstimate.of(job, SHAPE, CPU).check(job, available)
    most = int(str(told.value).split("at most about ")[1].split()[0])

    def fits(rows: int) -> bool:
        of_rows = job.model_copy(update={"data": job.data.model_copy(update={"batch_size": rows})})
        return MemoryEstimate.of(of_rows, SHAPE, CPU).total <= available

    assert most % 2 == 0
    assert fits(most)
    assert not fits(most + 4)
    with pytest.raises(InputError, match=r"^model: "):
        MemoryEstimate.of(job, SHAPE, CPU).check(job, 1 << 10)


# What is told


def test_packages_on_the_path_that_are_not_installed_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise packages_module.PackageNotFoundError(name)

    assert version_of("torch") == torch.__version__.split("+")[0] or version_of("torch") == torch.__version__
    assert folder_of("torch") == str(Path(torch.__file__).parent)
    monkeypatch.setattr(packages_module, "version", missing)
    assert version_of("mtids-dist") == "unknown"
    assert folder_of("no_such_module") == "unknown"


def test_the_batch_is_the_stores_own_rows(tiny: Path) -> None:
    config = load_run(tiny)
    store = open_store(config.data.store or "")
    batch = sample_batch(store, config.data, config.tasks, rows=5, seed=0)
    first = next(store.batches(store.folds_of(Split.TRAIN, 0), batch_size=5))
    from mtids_dist.data import crops_of

    assert torch.equal(batch.crops, normalise(crops_of(first), config.data.window))
    wanted = [-1 if value is None else value for value in first.column("bright").to_pylist()]
    assert batch.labels["bright"].tolist() == wanted


def rehearsed(path: Path, *overrides: str) -> dict[str, Any]:
    found: dict[str, Any] = rehearse_here(load_run(path, overrides).job(), crop_shape=SHAPE).to_json()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_what_a_rehearsal_tells(tiny: Path, stage: int) -> None:
    found = json.loads(json.dumps(rehearsed(tiny, "train.scale.precision=bf16", f"train.scale.zero_stage={stage}")))
    assert (found["zero_stage"], found["running_stage"]) == (stage, max(stage, 1))
    assert bool(found["stage_note"]) == (stage == 0)
    assert (found["workers"], found["global_batch"], found["steps_per_epoch"]) == (2, 8, 12)
    assert sum(count for part, count in found["parameters"].items() if part != "total") == found["parameters"]["total"]
    memory = found["memory_mib"]
    assert memory["total"] == pytest.approx(sum(mib for part, mib in memory.items() if part not in ("total", "available")), abs=1)
    assert set(found["loss"]) == {"bright", "upper"}
    assert all(loss > 0 for loss in found["loss"].values())
    assert found["packages"]["mtids_dist"]["folder"] == str(Path(rehearsal_module.__file__).parents[1])
    table = rehearsal_table(found)
    assert ("bf16 has fp32 master weights only from stage 1 on" in table) == (stage == 0)
    assert "2 of 4 crops (two: a CPU is to answer soon)" in table
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            NotImplementedError("no kernel for 'aten::x'\nsecond line"),
            "train.scale.precision: .*fp32 on this cpu.*no kernel for 'aten::x'",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "data.batch_size: .*found CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "data.batch_size: "),
        (ValueError("gradients can't be balanced"), "train.scale.deepspeed: "),
    ],
)
def test_whatever_goes_wrong_names_a_setting(tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Learner, "step", fail)
    with pytest.raises(InputError, match=f"^{told}") as raised:
        rehearsed(tiny)
    assert "second line" not in str(raised.value)
    assert not torch.distributed.is_initialized()


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(tiny: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=r"^train\.scale\.gpus_per_worker: this machine has no GPU"):
        rehearsed(tiny, "train.scale.gpus_per_worker=1")


# The command line


def test_only_a_check_has_an_answer_for_a_machine(tiny: Path) -> None:
    assert "train --check --json" in str(CliRunner().invoke(app, ["train", str(tiny), "--json"]).exception)


def test_a_submitted_check_works_in_no_run_folder(tmp_path: Path) -> None:
    import typer

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    description = write_description(tmp_path / "run.yaml", tmp_path / "store")
    sent = call_of(["train", str(description), "--check"], verbs, tmp_path, checks={})
    assert sent.run is None
    assert sent.words[-1] == "--check"
    assert call_of(["train", str(description)], verbs, tmp_path, checks={}).run == tmp_path / "run"


@pytest.mark.slow
def test_a_check_passes_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = run("train", str(tiny), "--check", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 2
    assert done.stderr == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_shipped_description_without_a_store_takes_random_crops(tmp_path: Path) -> None:
    words = ["--check", "--set", f"run={tmp_path / 'run'}"]
    done = run("train", str(CONFIGS / "tune-demo.yaml"), *words)
    assert done.returncode == 0, done.stderr
    assert "`train` makes the phantom cohort first" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.batch_size=1000000"], "data.batch_size: 2 workers x 1000000 crops"),
        (["data.store=null", "data.batch_size=1000000000"], "data.batch_size: a batch does not fit into a worker's memory"),
        (["train.scale.precision=fp8"], "train.scale.precision: Input should be 'fp32' or 'bf16'"),
        (["data.store=/no/such/store"], "/no/such/store: no such store"),
    ],
)
def test_refusals_are_one_line(tiny: Path, tmp_path: Path, overrides: list[str], told: str) -> None:
    done = run("train", str(tiny), "--check", *(word for override in overrides for word in ("--set", override)))
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert told in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "tiny").exists()


@pytest.mark.slow
def test_a_check_here_starts_no_ray(tiny: Path) -> None:
    code = "import sys; from mtids_dist.cli import main\ntry: main()\nfinally: print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(tiny), "--check"], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1] == "False", done.stdout + done.stderr


@pytest.mark.slow
def test_a_check_on_a_cluster_runs_as_a_task(tiny: Path) -> None:
    import ray

    from mtids_dist.ray_session import ray_session
    from mtids_dist.train import rehearse_on_ray

    with ray_session(None, workers=2):
        assert ray.is_initialized()
        found = rehearse_on_ray(load_run(tiny).job(), crop_shape=SHAPE)
        assert found.rows == 2
        job = load_run(tiny, ["train.scale.workers=1", "data.batch_size=1000000000", "data.store=null"]).job()
        with pytest.raises(InputError, match=r"^data\.batch_size: a batch does not fit"):
            rehearse_on_ray(job, crop_shape=SHAPE)

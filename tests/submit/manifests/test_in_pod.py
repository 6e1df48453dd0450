"""What runs in pods, run for real: the entrypoint, the preStop hook, resuming, the log keeper, the bucket."""

from __future__ import annotations

import json
import logging.handlers
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from manifest_cases import IMAGE, ROOT
from pod_stand_in import environment_of, needs_root, run_in_pod
from tiny import make_store, write_description

from mtids_dist.config import load_run
from mtids_dist.in_pod.bucket import Pusher, pull
from mtids_dist.in_pod.keep_logs import LogKeeper
from mtids_dist.submit.kubernetes import read_settings, render
from mtids_dist.train import read_lines

SEED = 11


def test_a_log_is_kept_whole_through_rotation_and_end(tmp_path: Path) -> None:
    session, kept = tmp_path / "ray", tmp_path / "kept"
    log = session / "session_1" / "logs" / "raylet.out"
    log.parent.mkdir(parents=True)
    (session / "session_latest").symlink_to("session_1")
    handler = logging.handlers.RotatingFileHandler(log, maxBytes=400, backupCount=50)
    keeper, rng, written = LogKeeper(session, kept), random.Random(SEED), ""
    for number in range(200):
        line = f"line {number} of seed {SEED}"
        handler.emit(logging.makeLogRecord({"msg": line}))
        written += line + "\n"
        if rng.random() < 0.3:
            keeper.take()
    keeper.take()
    assert (kept / "session_1" / "logs" / "raylet.out").read_text() == written
    assert [path.name for path in kept.iterdir()] == ["session_1"]


def test_the_log_keeper_takes_the_rest_when_it_is_asked_to_end(tmp_path: Path) -> None:
    log = tmp_path / "ray" / "session_1" / "logs" / "driver.log"
    log.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "mtids_dist.in_pod.keep_logs", str(tmp_path / "ray"), str(tmp_path / "kept")]
    keeper = subprocess.Popen(command, env={**os.environ, "POD_NAME": "head-1"})
    while b"keep_logs" not in Path(f"/proc/{keeper.pid}/cmdline").read_bytes() or not _handles(keeper.pid, signal.SIGTERM):
        time.sleep(0.01)
    log.write_text("the last words\n")
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(60) == 0
    assert (tmp_path / "kept" / "head-1" / "session_1" / "logs" / "driver.log").read_text() == "the last words\n"


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_what_is_pushed_to_a_bucket_is_pulled_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("run.yaml", "metrics.jsonl", "checkpoints/checkpoint_1/rank0/a.bin", "checkpoints/manager.json", "STOP"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    place = f"file://{tmp_path}/bucket/prefix"
    Pusher(run, place).push()
    assert pull(place, tmp_path / "back") == 4
    found = {
        str(path.relative_to(tmp_path / "back")): path.read_text() for path in (tmp_path / "back").rglob("*") if path.is_file()
    }
    assert found == {name: name for name in found}
    assert set(found) == {"run.yaml", "metrics.jsonl", "checkpoints/checkpoint_1/rank0/a.bin", "checkpoints/manager.json"}
    assert pull(f"file://{tmp_path}/nothing", tmp_path / "empty") == 0


class Meddled(Pusher):
    """A pusher in whose rounds a run writes a new checkpoint and removes the old one, at the worst moments."""

    def __init__(self, run: Path, place: str, moment: str) -> None:
        super().__init__(run, place)
        self.run, self.moment, self.listings, self.number = run, moment, 0, 0
        self.step()

    def step(self) -> None:
        self.number += 1
        folder = self.run / "checkpoints" / f"checkpoint_{self.number}"
        folder.mkdir(parents=True)
        for part in range(3):
            (folder / f"{part}.bin").write_text(f"{self.number}-{part}")
        (self.run / "checkpoints" / "manager.json").write_text(json.dumps(self.number))
        shutil.rmtree(folder.with_name(f"checkpoint_{self.number - 1}"), ignore_errors=True)

    def _files(self) -> Any:
        self.listings += 1
        if self.moment == "between the index and the list" and self.listings == 2:
            self.step()
        return super()._files()

    def _send(self, name: str, path: Path, stamp: Any) -> None:
        if self.moment == "while files are sent" and name.endswith("1.bin"):
            self.moment = ""
            self.step()
        super()._send(name, path, stamp)


@pytest.mark.parametrize("moment", ["between the index and the list", "while files are sent"])
def test_the_bucket_never_names_a_checkpoint_that_is_not_whole_in_it(moment: str, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket" / "checkpoints"
    pusher = Meddled(tmp_path / "run", f"file://{bucket.parent}", moment)
    assert not pusher.push()
    for _ in range(4):
        if (bucket / "manager.json").exists():
            named = bucket / f"checkpoint_{json.loads((bucket / 'manager.json').read_text())}"
            assert len(list(named.glob("*.bin"))) == 3
        assert pusher.push()
        pusher.step()
    assert json.loads((bucket / "manager.json").read_text()) == 5
    assert sorted(path.name for path in bucket.glob("checkpoint_*") if any(path.iterdir())) == ["checkpoint_4", "checkpoint_5"]


HOOK = """
export PYTHONPATH={stand_in}
RAY_JOB_CONFIG_JSON_ENV_VAR='{{"metadata": {metadata}}}' python -m mtids_dist {run} & driver=$!
for _ in $(seq 1200); do [ -e {run}/up ] && break; sleep 0.05; done
cd /; export PYTHONPATH={root}
python -m mtids_dist.in_pod.stop_run --seconds {seconds} && echo HOOK-0 || echo HOOK-1
[ -e {run}/STOP ] && echo STOP
[ -e {run}/checkpoint ] && echo CHECKPOINT
kill $driver || true
"""
DRIVER = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[1])
(run / "up").touch()
while not (run / "STOP").exists():
    time.sleep(0.02)
time.sleep(1)
(run / "checkpoint").touch()
"""
HOOKS = {
    "a run": ("train", True, 60, {"HOOK-0", "STOP", "CHECKPOINT"}),
    "a search": ("tune", True, 60, {"HOOK-0", "STOP", "CHECKPOINT"}),
    "not a run's folder": ("train", False, 1, {"HOOK-1"}),
    "a verb that has no checkpoint": ("prepare", True, 1, {"HOOK-1"}),
}


@needs_root
@pytest.mark.parametrize("what", HOOKS)
def test_the_hook_asks_for_a_checkpoint_and_waits_for_it(what: str, tmp_path: Path) -> None:
    """In a PID namespace of its own, as in a pod: the hook looks at every process that it sees."""
    verb, is_run, seconds, expected = HOOKS[what]
    run = tmp_path / "run"
    (tmp_path / "mtids_dist").mkdir()
    (tmp_path / "mtids_dist" / "__init__.py").touch()
    (tmp_path / "mtids_dist" / "__main__.py").write_text(DRIVER)
    run.mkdir()
    if is_run:
        (run / "run.yaml").touch()
    metadata = json.dumps({"mtids_dist.verb": verb, "mtids_dist.run": str(run)})
    script = HOOK.format(stand_in=tmp_path, root=ROOT, run=run, metadata=metadata, seconds=seconds)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={"PATH": path}, cwd=tmp_path, check=False)
    assert set(done.stdout.split()) == expected, done.stderr


STORE = "cohort/store"
TOKEN = "a-token-for-a-test-that-is-long-enough-0123456789"
SCRIPT = """
touch /denied 2>/dev/null && exit 91
touch /mnt/storage/{store}/denied 2>/dev/null && exit 92
python -m mtids_dist.in_pod.keep_logs /tmp/ray /mnt/storage/logs/tiny & keeper=$!
ray start --head --num-cpus=3 --dashboard-host=0.0.0.0 --metrics-export-port=8080 --object-store-memory=200000000 >/tmp/start
dashboard=http://127.0.0.1:8265 entrypoint={entrypoint}
submit() {{ ray job submit --address $dashboard --no-wait --metadata-json {metadata} --submission-id $1 -- $entrypoint; }}
state() {{ ray job status --address $dashboard $1 2>&1; }}
over() {{ until state $1 | grep -qE "Job '$1' (failed|succeeded|was stopped)|SUCCEEDED|FAILED"; do sleep 1; done; state $1; }}
submit first
until ls -d /mnt/storage/{run}/checkpoints/checkpoint_* >/dev/null 2>&1; do state first | grep -q FAILED && break; sleep 0.2; done
{hook} && echo HOOK-0
over first
ls -d /mnt/storage/{run}/checkpoints/checkpoint_*
entrypoint="$entrypoint --set train.epochs=$(($(grep -c '"kind": "validation"' /mnt/storage/{run}/metrics.jsonl) + 1))"
submit again
over again
kill $keeper; wait $keeper
"""


@pytest.mark.long
@needs_root
def test_a_restricted_pod_trains_stops_with_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    make_store(storage / STORE)
    description = write_description(tmp_path / "tiny.yaml", Path(STORE), epochs=200)
    run = load_run(description, ["run=runs/tiny"])
    settings = {"image": IMAGE, "storage": "pvc:mtids-dist", "workers.count": 1, "workers.cpus": 3}
    _, documents = render("train", run, read_settings(None, [], settings), run_verbs=["train"])
    spec = documents[-1]["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    (tmp_path / "run.yaml").write_text(documents[1]["data"]["run.yaml"])
    script = SCRIPT.format(
        store=STORE,
        run="runs/tiny",
        metadata=shlex.quote(json.dumps(spec["metadata"])),
        entrypoint=shlex.quote(spec["entrypoint"]),
        hook=shlex.join(head["lifecycle"]["preStop"]["exec"]["command"]),
    )
    environment = environment_of(head) | {"RAY_AUTH_TOKEN": TOKEN, "POD_NAME": "tiny-head"}
    done = run_in_pod(
        script, scratch=tmp_path, run_yaml=tmp_path / "run.yaml", store=STORE, environment=environment, timeout_s=580
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "HOOK-0" in said
    assert "exit code 3" in said, said
    folder = storage / "runs" / "tiny"
    events = [line["event"] for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "event"]
    assert events.count("started") + events.count("resumed") == 2
    assert events[-1] == "finished"
    kept = [path.name for path in (storage / "logs" / "tiny" / "tiny-head").rglob("*")]
    assert "raylet.out" in kept
    assert any(name.startswith("job-driver-first") for name in kept)

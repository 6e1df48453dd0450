"""Jobs on a real cluster with token authentication: submitted, followed, stopped, fetched, over a connection that breaks."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from local_cluster import LIMIT_S, CuttingProxy, LocalCluster, hear_interrupts, interrupt, local_cluster, wait_until
from tiny import make_store, write_description

from mtids_dist.submit.on_cluster import files_of, sha256_of
from mtids_dist.train import RunFolder, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is sent, apart from the storage that runs live on."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def describe(work: Path, name: str, store: Path, **train: object) -> RunFolder:
    """A description that is sent, of a run on shared storage."""
    path = write_description(work / f"{name}.yaml", store, **train)
    run = work.parent / "storage" / name
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"run": str(run)}))
    return RunFolder(run)


def listed(cluster: LocalCluster) -> dict[str, dict[str, object]]:
    done = cluster.run("jobs", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {job["id"]: job for job in json.loads(done.stdout)}


def own_lines(log: str) -> list[str]:
    """What the job's command wrote: Ray's own words about it may come before or after."""
    return [line for line in log.splitlines() if not re.search(r"job_manager\.py|^Running entrypoint for job", line)]


def steps(run: RunFolder) -> list[int]:
    return [line["step"] for line in read_lines(run.metrics) if line["kind"] == "step"] if run.metrics.exists() else []


def test_a_train_is_followed_to_its_end_and_fetched(cluster: LocalCluster, store: Path, work: Path, tmp_path: Path) -> None:
    run = describe(work, "first", store, epochs=2)
    words = ("submit", "train", "first.yaml", "--follow", "--set", "seed=3")
    done = cluster.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sends 1 files" in done.stderr
    assert f"trained: {run.weights}" in done.stdout
    assert run.weights.exists()
    job_id = done.stderr.partition("submitted ")[2].split()[0]
    assert re.fullmatch(r"train-first-[0-9a-f]{8}", job_id)

    again = cluster.run(*words)
    assert again.returncode == 0
    assert f"it has ended before. To run it again give another id: --id {job_id}-2" in again.stderr
    assert again.stdout == done.stdout
    assert [name for name in listed(cluster) if "first" in name] == [job_id]

    other = cluster.run("submit", "train", "first.yaml", "--id", job_id)
    assert other.returncode == 2
    assert "belongs to a job that runs something else" in other.stderr

    fetched_is_the_run(cluster, job_id, run, tmp_path / "copied", copied=True)
    if os.geteuid() == 0 and shutil.which("unshare"):
        fetched_is_the_run(cluster, job_id, run, tmp_path / "fetched", copied=False)


def fetched_is_the_run(cluster: LocalCluster, job_id: str, run: RunFolder, target: Path, *, copied: bool) -> None:
    command = cluster.command("jobs", "fetch", job_id, "--out", str(target), "--json")
    if not copied:  # the run folder is out of this process's sight
        command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(run.path.parent), *command]
    for _ in range(2):  # a second time it takes the first one's place
        done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout[done.stdout.index("{") :])
    files = files_of(run.path, ["checkpoints"])
    assert {"run.yaml", "versions.json", "metrics.jsonl", "model.safetensors"} <= {str(name) for name in files}
    assert (answer["copied"], answer["files"]) == (copied, len(files))
    assert [*files_of(target, [".fetched.json"])] == files
    assert {name: sha256_of(target / name) for name in files} == {name: sha256_of(run.path / name) for name in files}
    assert not [name for name in target.parent.iterdir() if name.name.startswith(".")], "no draft is left"


def test_a_folder_of_something_else_is_not_replaced(cluster: LocalCluster, work: Path) -> None:
    (work / "thesis.tex").write_text("precious")
    cluster.run("submit", "exec", "--id", "no-run", "--", "true")
    assert "has no run folder" in cluster.run("jobs", "fetch", "no-run", "--out", str(work)).stderr
    assert (work / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_following_exits_as_the_command_did(cluster: LocalCluster, work: Path, script: str, code: int) -> None:
    done = cluster.run("submit", "exec", "--follow", "--", "sh", "-c", f"echo said; {script}")
    assert done.returncode == code, done.stderr
    assert "\nsaid\n" in done.stdout


def test_a_training_is_stopped_with_a_checkpoint(cluster: LocalCluster, store: Path, work: Path) -> None:
    run = describe(work, "long", store, epochs=2000, checkpoint_every=2000)
    submitted = cluster.run("submit", "train", "long.yaml")
    job_id = submitted.stdout.strip()
    wait_until(lambda: len(steps(run)) > 3)
    attached = cluster.run("submit", "train", "long.yaml")
    assert (attached.returncode, attached.stdout.strip()) == (0, job_id)
    assert "is there already (RUNNING): attached to it" in attached.stderr
    second = cluster.run("submit", "train", "long.yaml", "--id", "second")
    assert second.returncode == 2
    assert f"{job_id} works in this run folder" in second.stderr

    stopped = cluster.run("jobs", "stop", job_id, "--json")
    assert stopped.returncode == 0, stopped.stderr
    answer = json.loads(stopped.stdout)
    assert (answer["how"], answer["exit_code"], answer["state"]) == ("flag", 3, "FAILED")
    assert list(run.checkpoints.glob("checkpoint_*/portable/weights.safetensors"))
    followed = cluster.run("jobs", "logs", job_id, "--follow")
    assert followed.returncode == 3
    assert "stopped with a checkpoint" in followed.stdout
    assert "was over already" in cluster.run("jobs", "stop", job_id).stdout

    # The same description goes on from there; without any patience Ray's own stop comes at once, and still leaves a checkpoint.
    before, saved = len(steps(run)), set(run.checkpoints.glob("checkpoint_*/portable"))
    assert cluster.run("submit", "train", "long.yaml", "--id", "goes-on").returncode == 0
    wait_until(lambda: len(steps(run)) > before)
    ended = cluster.run("jobs", "stop", "goes-on", "--grace", "0", "--json")
    assert json.loads(ended.stdout)["how"] in ("signal", "flag")
    assert set(run.checkpoints.glob("checkpoint_*/portable")) - saved
    events = [line for line in read_lines(run.metrics) if line["kind"] == "event" and line["event"] in ("resumed", "stopped")]
    assert [line["event"] for line in events] == ["stopped", "resumed", "stopped"]
    assert events[1]["step"] == events[0]["step"] == before


def test_wrong_token_no_token_no_server(cluster: LocalCluster, work: Path) -> None:
    for words in (("jobs", "list"), ("submit", "exec", "--", "true")):
        for environment, address, told in (
            ({"RAY_AUTH_TOKEN": "0" * 32}, None, "the cluster refuses the token; found the one from RAY_AUTH_TOKEN"),
            ({"RAY_AUTH_TOKEN": ""}, None, "the cluster wants a token; found none"),
            ({}, "http://127.0.0.1:9", "no Ray dashboard answers; found Connection refused"),
        ):
            done = cluster.run(*words, address=address, **environment)
            assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
            assert told in done.stderr


def test_variables_do_not_lead_astray(cluster: LocalCluster) -> None:
    done = cluster.run("jobs", "list", RAY_ADDRESS="http://127.0.0.1:9")
    assert done.returncode == 0
    assert f"going to {cluster.address} as --address says, not where RAY_ADDRESS=http://127.0.0.1:9 points" in done.stderr


def test_a_job_is_told_of(cluster: LocalCluster, work: Path) -> None:
    assert (
        cluster.run("submit", "exec", "--id", "told", "--follow", "--", "sh", "-c", "echo one; echo two; exit 4").returncode == 4
    )
    assert listed(cluster)["told"]["exit_code"] == 4
    assert re.search(r"^told +FAILED +4 +exec", cluster.run("jobs", "list").stdout, re.MULTILINE)
    assert cluster.run("jobs", "status", "told").stdout == "told: FAILED, exit code 4\n"
    assert (
        json.loads(cluster.run("jobs", "status", "told", "--json").stdout)["entrypoint"] == "sh -c 'echo one; echo two; exit 4'"
    )
    assert own_lines(cluster.run("jobs", "logs", "told").stdout) == ["one", "two"]
    assert own_lines(json.loads(cluster.run("jobs", "logs", "told", "--json").stdout)["log"]) == ["one", "two"]
    for verb in ("status", "logs", "stop", "fetch"):
        unknown = cluster.run("jobs", verb, "nobody")
        assert (unknown.returncode, "no such job; found nobody" in unknown.stderr) == (2, True)


def test_a_job_has_exactly_what_was_sent(cluster: LocalCluster, work: Path) -> None:
    for name in ("a.txt", "sub/b.py", "sub/c.dcm", ".env", "d.parquet"):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(name)
    words = (
        "submit",
        "exec",
        "--env",
        "COLOUR=blue",
        "--",
        "sh",
        "-c",
        "find . -type f | sort; echo $COLOUR $MTIDS_DIST_ADDRESS",
    )
    planned = json.loads(cluster.run(words[0], "--dry-run", *words[1:]).stdout)
    done = cluster.run(words[0], "--follow", *words[1:])
    assert own_lines(done.stdout) == [*(f"./{file['path']}" for file in planned["files"]), "blue auto"]
    assert planned["entrypoint"] in done.stdout


def test_our_package_can_be_sent(cluster: LocalCluster, work: Path) -> None:
    tell = "import mtids_dist; print(mtids_dist.__file__)"
    hidden = ("--env", "PYTHONPATH=/nowhere")  # where the cluster has it from
    done = cluster.run("submit", "exec", "--send-package", *hidden, "--follow", "--", "python", "-c", tell)
    assert done.returncode == 0, done.stdout
    assert "py_modules_files" in own_lines(done.stdout)[-1]


def test_a_cluster_without_our_package_is_told(cluster: LocalCluster, work: Path) -> None:
    """The job's Python is one that has nothing installed."""
    (work / "python").write_text('#!/bin/sh\nexec "$PLAIN" -I -S "$@"\n')
    (work / "python").chmod(0o755)
    done = cluster.run("submit", "version", "--follow", "--env", "PATH=.:/usr/bin:/bin", "--env", f"PLAIN={sys.executable}")
    assert done.returncode == 1
    assert "the cluster has no mtids_dist: submit it with --send-package" in done.stderr


def test_a_dropped_connection_neither_loses_nor_repeats_lines(cluster: LocalCluster, work: Path) -> None:
    lines = "for i in $(seq 400); do echo line $i of a log; [ $((i % 40)) = 0 ] && sleep 1; done; printf no-newline-at-its-end"
    with CuttingProxy(cluster.address, cuts=3, after_bytes=3000) as proxy:
        done = cluster.run("submit", "exec", "--id", "cut", "--follow", "--", "sh", "-c", lines, address=proxy.address)
        assert done.returncode == 0, done.stderr
        assert proxy.done == 3
    assert done.stdout == cluster.run("jobs", "logs", "cut").stdout
    numbers = [int(line.split()[1]) for line in done.stdout.splitlines() if re.fullmatch(r"line \d+ of a log", line)]
    assert numbers == list(range(1, 401))


def test_a_log_that_is_not_utf8_is_read(cluster: LocalCluster, work: Path) -> None:
    tell = r"import sys; sys.stdout.buffer.write(b'good\n\xff bad\nlast\n')"
    done = cluster.run("submit", "exec", "--id", "bytes", "--follow", "--", "python", "-c", tell)
    assert done.returncode == 0, done.stderr
    assert own_lines(done.stdout) == ["good", "\N{REPLACEMENT CHARACTER} bad", "last"]
    assert cluster.run("jobs", "logs", "bytes").stdout == done.stdout


def test_an_interrupt_without_a_terminal_detaches(cluster: LocalCluster, work: Path) -> None:
    following = cluster.start("submit", "exec", "--id", "goes-on-alone", "--follow", "--", "sleep", "600")
    wait_until(lambda: listed(cluster).get("goes-on-alone", {}).get("state") == "RUNNING")
    code, _, err = interrupt(following)
    assert code == 130
    assert "detached; goes-on-alone goes on" in err
    assert listed(cluster)["goes-on-alone"]["state"] == "RUNNING"
    stopped = cluster.run("jobs", "stop", "goes-on-alone", "--json")
    assert stopped.returncode == 0, stopped.stderr
    assert (json.loads(stopped.stdout)["how"], json.loads(stopped.stdout)["state"]) == ("signal", "STOPPED")


def test_an_interrupt_on_a_terminal_asks(cluster: LocalCluster, work: Path) -> None:
    with Terminal(cluster, "submit", "exec", "--id", "asked", "--follow", "--", "sleep", "600") as terminal:
        terminal.expect("Running entrypoint")
        terminal.type("\x03")
        terminal.expect("[d]etach, [s]top the job, or go on [w]atching?")
        terminal.type("w\n")
        time.sleep(1)
        terminal.type("\x03")
        terminal.expect("[d]etach")
        terminal.type("s\n")
        terminal.expect("asked: STOPPED")
        assert terminal.wait() == 1
    assert listed(cluster)["asked"]["state"] == "STOPPED"


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, cluster: LocalCluster, *words: str) -> None:
        self._command, self._environment = cluster.command(*words), cluster.environment
        self._seen = ""

    def __enter__(self) -> Terminal:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            hear_interrupts()
            os.execve(self._command[0], self._command, self._environment)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def type(self, keys: str) -> None:
        self._seen = ""
        os.write(self._fd, keys.encode())

    def expect(self, text: str) -> None:
        end = time.monotonic() + LIMIT_S
        while text not in self._seen:
            assert time.monotonic() < end, self._seen
            if select.select([self._fd], [], [], 1)[0]:
                self._seen += os.read(self._fd, 4096).decode(errors="replace")

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

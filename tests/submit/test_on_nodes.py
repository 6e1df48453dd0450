"""Three real nodes on one machine, each with its own network, processes and private folder, and one folder that all share.

Jobs are submitted from outside of them. Needs root, iproute2 and ../shared/cluster/nodes.sh.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from local_cluster import LIMIT_S, ROOT, LocalCluster, answers, node_environment, wait_until
from tiny import make_store, write_description

from mtids_dist.train import read_lines

SCRIPT = ROOT.parent / "shared" / "cluster" / "nodes.sh"
NODES = 3
HEAD = "http://10.77.0.10:8265"
COLUMNS = ["series_instance_uid", "patient_id", "node_id", "x_mm", "y_mm", "z_mm", "short_axis_mm", "station", "metastasis"]
TOOLS = ("ip", "unshare", "mount", "curl")
WRAPPER = """#!/bin/sh
mount --bind {home}/of-all {home}/shared && mount --bind {home}/of-$(hostname) {home}/local && exec {ray} "$@"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not SCRIPT.exists(), reason="../shared/cluster/nodes.sh is not here"),
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)} (iproute2, util-linux, curl)"),
]


@dataclass(frozen=True)
class Nodes:
    """`home/shared` and `home/local` are mounted on nodes only; from outside the folders behind them can be filled."""

    cluster: LocalCluster
    home: Path

    @property
    def behind_shared(self) -> Path:
        return self.home / "of-all"

    def behind_local(self, node: int) -> Path:
        return self.home / f"of-mtnode{node}"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if subprocess.run(["ip", "link", "show", "mtxbr"], capture_output=True, check=False).returncode == 0:
        pytest.skip("somebody else's nodes are up; to end them: ../shared/cluster/nodes.sh down")
    home = Path(tempfile.mkdtemp(prefix="mtids-", dir="/tmp"))
    for name in ("of-all", *(f"of-mtnode{node}" for node in range(NODES)), "shared", "local"):
        (home / name).mkdir()
    wrapper = home / "ray"
    wrapper.write_text(WRAPPER.format(home=home, ray=Path(sys.executable).with_name("ray")))
    wrapper.chmod(0o755)
    cluster = LocalCluster(HEAD, secrets.token_hex(16), home)
    environment = node_environment(cluster) | {"RAY": str(wrapper), "NODES_DIR": str(home / "nodes")}
    try:
        for words in (("up", str(NODES)), ("start", str(NODES), "1")):
            subprocess.run(["bash", str(SCRIPT), *words], env=environment, check=True, capture_output=True, timeout=LIMIT_S)
        wait_until(lambda: answers(cluster))
        wait_for_nodes(cluster)
        yield Nodes(cluster, home)
    finally:
        subprocess.run(["bash", str(SCRIPT), "down"], env=environment, check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def wait_for_nodes(cluster: LocalCluster) -> None:
    tell = f"import ray, time; ray.init('auto')\nwhile ray.cluster_resources().get('CPU', 0) < {NODES}: time.sleep(0.5)"
    done = cluster.run("submit", "exec", "--working-dir", str(cluster.home / "local"), "--follow", "--", "python", "-c", tell)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def work(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is sent: a description of a run and store on shared storage."""
    if not (nodes.behind_shared / "store").exists():
        make_store(nodes.behind_shared / "store")
    monkeypatch.chdir(tmp_path)
    path = write_description(tmp_path / "run.yaml", nodes.home / "shared" / "store", epochs=4)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"run": str(nodes.home / "shared" / "runs" / "run")}))
    return tmp_path


def networks_of_ranks() -> set[str]:
    """The network namespaces that processes of ranks live in."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if " ".join(process.cmdline()).startswith("ray::RayTrainWorker"):
                found.add(str(Path(f"/proc/{process.pid}/ns/net").readlink()))
    return found


def test_two_ranks_train_on_two_nodes_and_the_run_is_fetched(nodes: Nodes, work: Path) -> None:
    others = networks_of_ranks()
    seen: set[str] = set()
    with nodes.cluster.start("submit", "train", "run.yaml", "--follow", "--env", "GLOO_SOCKET_IFNAME=eth0") as following:
        while following.poll() is None and len(seen) < 2:
            seen |= networks_of_ranks() - others
            time.sleep(0.2)
        out, err = following.communicate(timeout=LIMIT_S)
    assert following.returncode == 0, out + err
    assert len(seen) == 2, "each rank in the network of a node of its own"
    run = nodes.behind_shared / "runs" / "run"
    lines = list(read_lines(run / "metrics.jsonl"))
    assert next(line for line in lines if line["kind"] == "event")["workers"] == 2
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 49))
    assert "trained: " in out
    job_id = err.partition("submitted ")[2].split()[0]
    fetched = nodes.cluster.run("jobs", "fetch", job_id)
    assert "over the dashboard's port" in fetched.stdout, fetched.stderr
    assert (work / "run" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("setting", "place"), [("data.store", "store"), ("run", "runs/x"), ("train.init_from", "weights")])
def test_a_path_of_one_node_is_refused_before_training(nodes: Nodes, work: Path, setting: str, place: str) -> None:
    here = nodes.behind_local(0)  # the head sees it, as whoever prepared it there did
    if not (here / "store").exists():
        make_store(here / "store")
    (here / "weights").write_text("of the head alone")
    path = nodes.home / "local" / place
    settings = {"run": nodes.home / "shared" / "runs" / "refused", setting: path}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = nodes.cluster.run("submit", "train", "run.yaml", *words, "--follow")
    assert done.returncode == 2, done.stdout + done.stderr
    told = done.stdout.splitlines()[-1]
    assert f"{setting}: {path} is not the same on node 10.77.0.1" in told
    assert "found" in told
    assert not (here / "runs").exists()
    assert not (nodes.behind_shared / "runs" / "refused").exists()


def test_a_store_of_one_node_is_refused_before_it_is_prepared(nodes: Nodes, work: Path) -> None:
    (nodes.behind_shared / "dicom").mkdir()
    (nodes.behind_shared / "dicom" / "1.dcm").touch()
    (work / "nodes.csv").write_text(f"{','.join(COLUMNS)}\n1.2,p,n,0,0,0,9,4R,1\n")
    store = nodes.home / "local" / "prepared"
    done = nodes.cluster.run("submit", "prepare", str(nodes.home / "shared" / "dicom"), "nodes.csv", str(store), "--follow")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"STORE: {store} is not the same on node 10.77.0.1" in done.stdout.splitlines()[-1]
    assert not (nodes.behind_local(0) / "prepared").exists()

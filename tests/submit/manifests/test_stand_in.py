"""Real kubectl and our own --apply, against a stand-in API server (no Kubernetes, no operator: the test drives the status)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from manifest_cases import IMAGE, ROOT, Case, allowed_cases
from stand_in import WAIT_S, StandIn, kubeconfig, needs_stand_in, stand_in

from mtids_dist.errors import InputError, WorkFailedError
from mtids_dist.submit.kubernetes import apply, follow, to_yaml
from mtids_dist.submit.kubernetes.outcome import Standing

pytestmark = [pytest.mark.slow, needs_stand_in]

PLURALS = {"RayJob": "rayjobs", "RayCluster": "rayclusters", "RayCronJob": "raycronjobs", "Job": "jobs"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    with stand_in(tmp_path_factory.mktemp("stand-in")) as found:
        yield found


@pytest.fixture(autouse=True)
def _kubeconfig(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))


def test_kubectl_applies_lists_waits_for_and_deletes_the_grid(server: StandIn) -> None:
    cases = allowed_cases()
    documents = [document for number, case in enumerate(cases) for document in case.documents(name=f"case-{number}")]
    print(f"stand-in: {len(documents)} documents of {len(cases)} manifests")
    text = to_yaml(documents)
    applied = server.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=text).stdout
    assert applied.count("serverside-applied") == len(documents)
    listed = server.kubectl("get", "rayjobs,rayclusters,raycronjobs,jobs", "-o", "name").stdout.split()
    assert len(listed) == len(cases)
    jobs = [d["metadata"]["name"] for d in documents if d["kind"] == "RayJob"]
    for name in jobs[:3]:
        server.set_status("rayjobs", name, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    waited = server.kubectl(
        "wait", "--for=jsonpath={.status.jobStatus}=SUCCEEDED", "--timeout=60s", *(f"rayjob/{name}" for name in jobs[:3])
    )
    assert waited.stdout.count("condition met") == 3
    table = server.kubectl("get", "rayjob", jobs[0]).stdout
    assert "SUCCEEDED" in table
    server.kubectl("delete", "--wait=false", "-f", "-", stdin=text)
    for plural in ("rayjobs", "rayclusters", "raycronjobs"):
        assert server.objects(plural) == {}


def test_the_stand_in_refuses_what_the_schema_refuses(server: StandIn) -> None:
    documents = Case("train").documents(name="typo")
    documents[-1]["spec"]["shutdownAfterJobFinish"] = True
    assert server.kubectl("apply", "--server-side", "-f", "-", stdin=to_yaml(documents[-1:]), check=False).returncode != 0
    with pytest.raises(InputError, match=r"the API server refuses it: .*shutdownAfterJobFinish"):
        apply(documents, say=print)


def followed(server: StandIn, documents: list[dict[str, Any]], said: list[str]) -> Future[Standing]:
    """Applies, and follows in a thread until the work is over."""
    cluster = apply(documents, say=said.append)
    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(follow, cluster, documents[-1], say=said.append, every_s=0.05)
    pool.shutdown(wait=False)
    return future


def until(what: str, said: list[str]) -> None:
    """Waits until the follower has said so: what the test does next comes after it."""
    deadline = time.monotonic() + WAIT_S
    while not any(what in line for line in said):
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


INVALID = "The RayJob spec is invalid"
ENTRYPOINT_7 = "Job entrypoint command failed with exit code 7, last available logs"
ENDS = {
    "succeeds": ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, 0),
    "fails": ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "it broke"}, 1),
    "exits 7": ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": ENTRYPOINT_7}, 7),
    "leaves a checkpoint": ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "failed with exit code 3"}, 3),
    "is stopped": ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 1),
    "comes too late": ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}, 1),
    "is refused": ({"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": INVALID}, 2),
}
UNDERWAY = (("Initializing", "PENDING"), ("Running", "RUNNING"), ("Suspended", ""), ("Retrying", "FAILED"), ("Running", ""))


@pytest.mark.parametrize("how", ENDS)
def test_a_ray_job_is_followed_to_its_end(how: str, server: StandIn) -> None:
    status, code = ENDS[how]
    name, said = f"follow-{how.replace(' ', '-')}", []
    end = followed(server, Case("train").documents(name=name), said)
    until("New", said)
    for deployment, job in (
        ("Initializing", "PENDING"),
        ("Running", "RUNNING"),
        ("Suspended", ""),
        ("Retrying", "FAILED"),
        ("Running", ""),
    ):
        server.set_status("rayjobs", name, {"jobDeploymentStatus": deployment, "jobStatus": job or None})
        until(f"{deployment} {job}".strip(), said)
    assert not end.done()
    server.set_status("rayjobs", name, status)
    assert end.result(WAIT_S).exit_code == code
    assert any(found.startswith(f"{name}-run-") for found in server.objects("configmaps", group="v1"))


def test_a_ray_job_that_is_deleted_has_failed(server: StandIn) -> None:
    said: list[str] = []
    end = followed(server, Case("tune").documents(name="deleted"), said)
    until("New", said)
    server.delete("rayjobs", "deleted")
    with pytest.raises(WorkFailedError, match="RayJob mtids-dist/deleted was deleted before it ended"):
        end.result(WAIT_S)


REFUSED = "Container work for pod a/b failed with exit code 2 matching FailJob rule at index 1"
OTHER_ENDS = [
    ("job", {"conditions": [{"type": "Complete", "status": "True"}]}, 0),
    ("job", {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": REFUSED}]}, 2),
    ("cluster", {"state": "ready"}, 0),
    ("cluster", {"state": "failed", "reason": "no quota"}, 1),
]


@pytest.mark.parametrize(("kind", "status", "code"), OTHER_ENDS)
def test_other_kinds_are_followed_too(kind: str, status: dict[str, Any], code: int, server: StandIn) -> None:
    name, said = f"{kind}-{code}", []
    documents = Case("train", {"kind": kind}).documents(name=name)
    end = followed(server, documents, said)
    until(f"mtids-dist/{name}: ", said)
    group = documents[-1]["apiVersion"]
    server.set_status(PLURALS[documents[-1]["kind"]], name, status, group=group)
    assert end.result(WAIT_S).exit_code == code


def test_what_is_there_is_followed_and_not_sent_again(server: StandIn) -> None:
    documents = Case("train", {"queue": "q"}).documents(name="admitted")
    apply(documents, say=print)
    server.kubectl("patch", "rayjob", "admitted", "--type=merge", "-p", '{"spec": {"suspend": false}}')  # what Kueue does
    said: list[str] = []
    end = followed(server, documents, said)
    assert said[0] == "RayJob mtids-dist/admitted is there already: nothing sent; delete it to run it again"
    server.set_status("rayjobs", "admitted", {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    assert end.result(WAIT_S).exit_code == 0
    assert server.objects("rayjobs")["admitted"]["spec"]["suspend"] is False


def config_map_of(server: StandIn, name: str) -> str:
    """The run description that a RayJob in the cluster has mounted."""
    pod = server.objects("rayjobs")[name]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return next(volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "run")


def epochs_of(server: StandIn, name: str) -> int:
    text = server.objects("configmaps", group="v1")[config_map_of(server, name)]["data"]["run.yaml"]
    return int(yaml.safe_load(text)["train"]["epochs"])


def test_a_changed_run_never_runs_an_old_description(server: StandIn) -> None:
    """The account, the ConfigMap and the policy of the first stay behind; docs/kubernetes.md says how to go on over them."""
    first, changed = (to_yaml(Case("train", overrides=(f"train.epochs={n}",)).documents(name="again")) for n in (3, 4))
    server.kubectl("apply", "--server-side", "-f", "-", stdin=first)
    assert epochs_of(server, "again") == 3
    server.delete("rayjobs", "again")
    created = server.kubectl("create", "-f", "-", stdin=changed, check=False)
    assert created.returncode == 1, "the account is there already"
    assert epochs_of(server, "again") == 4
    for text, epochs in ((first, 3), (changed, 4)):
        for _ in range(2):  # the second time there is none
            server.kubectl("delete", "rayjob", "again", "--ignore-not-found", "--cascade=foreground")
        server.kubectl("apply", "--server-side", "-f", "-", stdin=text)
        assert epochs_of(server, "again") == epochs
    server.kubectl("delete", "rayjob,job,configmap,networkpolicy,serviceaccount", "-l", "app.kubernetes.io/instance=again")
    for plural, group in (("rayjobs", "ray.io/v1"), ("configmaps", "v1"), ("serviceaccounts", "v1")):
        assert not [name for name in server.objects(plural, group=group) if name.startswith("again")]


def test_a_job_with_another_description_is_not_followed(server: StandIn) -> None:
    apply(Case("train").documents(name="taken"), say=print)
    with pytest.raises(InputError, match="RayJob mtids-dist/taken is there already, with another run description"):
        apply(Case("train", overrides=("train.epochs=3",)).documents(name="taken"), say=print)


def test_the_command_line_sends_follows_and_exits_with_the_works_code(server: StandIn) -> None:
    name = "whole-way"
    command = [sys.executable, "-m", "mtids_dist", "manifest", "train", str(ROOT / "configs/mtids.yaml"), "--image", IMAGE]
    command += ["--storage", "pvc:mtids-dist", "--name", name, "--apply"]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert run.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(run.stdout or ()))
    reader.start()
    deadline = time.monotonic() + WAIT_S
    while name not in server.objects("rayjobs"):
        assert run.poll() is None, said
        assert time.monotonic() < deadline
        time.sleep(0.2)
    server.set_status(
        "rayjobs", name, {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "with exit code 7, last"}
    )
    assert run.wait(WAIT_S) == 7
    reader.join()
    text = "".join(said)
    assert f"RayJob mtids-dist/{name} applied" in text
    assert "exit code 7" in text
    assert "Traceback" not in text


def test_no_cluster_is_one_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Case("train").documents()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InputError, match="kubeconfig: no cluster to talk to"):
        apply(documents, say=print)
    (tmp_path / "config").write_text(kubeconfig("http://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(InputError, match="no API server answers"):
        apply(documents, say=print)

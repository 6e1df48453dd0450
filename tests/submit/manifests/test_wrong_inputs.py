"""What is wrong is refused in one line that names it, before anybody is contacted."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import V1ObjectMeta, V1PodTemplateSpec
from manifest_cases import IMAGE, ROOT
from stand_in import kubeconfig

from mtids_dist.cli import app
from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.cron import check_schedule
from mtids_dist.submit.kubernetes.operator_rules import check_ray_object
from mtids_dist.submit.kubernetes.ray_v1 import (
    AuthOptions,
    HeadGroupSpec,
    RayCluster,
    RayClusterSpec,
    RayJob,
    RayJobSpec,
    SubmitterConfig,
    WorkerGroupSpec,
)

RUN = str(ROOT / "configs" / "mtids.yaml")
GOOD = ("--image", IMAGE, "--storage", "pvc:mtids-dist", "--set", "train.scale.workers=2")

IN_A_BUCKET = ("--storage", "s3://bucket/x", "--kind", "job", "--store", "pvc:a/b")

# Verb, what is said beside what is always said (and wins over it), and what the line has to say.
WRONG: dict[str, tuple[str, list[str], str]] = {
    "space": ("tune", ["--set", "tune.space={model.norm: [group]}"], "tune.space"),
    "verb": ("fly", [], "manifest VERB: this verb has no run description to work on; found fly; allowed: evaluate, prepare"),
    "no image": ("train", ["--image", ""], "image: not an image reference"),
    "latest": ("train", ["--image", "registry.example/mtids-dist:latest"], "image: latest is whatever was pushed last"),
    "no tag": ("train", ["--image", "registry.example:5000/mtids-dist"], "image: latest is whatever was pushed last"),
    "digest": (
        "train",
        ["--image", "registry.example/mtids-dist@sha256:abc"],
        "image: a digest is sha256: and 64 hexadecimal digits",
    ),
    "cpu image": (
        "train",
        ["--image", "r.example/mtids:1-cpu", "--gpus-per-worker", "1"],
        "--image: this image has no CUDA; found r.ex",
    ),
    "long name": (
        "train",
        ["--name", "a" * 48],
        "--name: not a name for a RayJob; found " + "a" * 48 + " (48 characters); allowed: a letter",
    ),
    "name": ("train", ["--name", "1st"], "--name: not a name for a RayJob; found 1st"),
    "cluster name": ("train", ["--kind", "cluster", "--name", "a" * 54], "not a name for a RayCluster"),
    "job name": ("train", ["--kind", "job", "--name", "Run"], "not a name for a Job; found Run"),
    "namespace": ("train", ["--namespace", "My_Space"], "namespace: not a namespace: lower-case letters"),
    "storage": ("train", ["--storage", "/data"], "storage: not pvc:NAME or pvc:NAME/SUBPATH; found /data"),
    "storage folder": ("train", ["--storage", "pvc:a/b"], "storage: the storage is a whole claim: pvc:NAME"),
    "bucket": (
        "train",
        ["--storage", "s3://bucket/runs"],
        "storage: a run folder is files that every node appends to and renames",
    ),
    "bucket name": (
        "train",
        ["--storage", "s3://ab/x", "--kind", "job"],
        "a bucket's name has 3 to 63 lower-case letters",
    ),
    "bucket prefix": ("train", ["--storage", "s3://bucket", "--kind", "job"], "not s3://BUCKET/PREFIX: a prefix has letters"),
    "weights in a bucket": (
        "train",
        [*IN_A_BUCKET, "--set", "train.init_from=runs/a"],
        "--storage s3://bucket/x: train.init_from is not read from a bucket; found runs/a; allowed: --storage pvc",
    ),
    "a key in a bucket": (
        "prepare",
        [
            *[
                "--storage",
                "s3://bucket/x",
                "--kind",
                "job",
                "--store",
                "pvc:a/b",
                "--archive",
                "pvc:a",
                "--set",
                "prepare.key_file=key",
            ]
        ],
        "--storage s3://bucket/x: prepare.key_file is not read from a bucket; found key; allowed: --storage pvc",
    ),
    "node table elsewhere": (
        "prepare",
        ["--archive", "pvc:a", "--nodes", "/data/nodes.csv"],
        "--nodes: no pod mounts this node table; found /data/nodes.csv; allowed: a path in the archive, or below /mnt/archive",
    ),
    "store in a bucket": ("train", ["--storage", "s3://bucket/runs", "--kind", "job"], "a store is not read from a bucket"),
    "archive in a bucket": (
        "prepare",
        ["--archive", "s3://bucket/ct"],
        "archive: not read from an object store: mount the bucket",
    ),
    "no archive": ("prepare", [], "--archive: prepare reads an archive; allowed: pvc:NAME[/SUBPATH]"),
    "nodes": (
        "prepare",
        ["--archive", "pvc:a", "--nodes", "../nodes.csv"],
        "--nodes: nodes: not a path of letters, digits and ._/=+- without ..",
    ),
    "prepare on a GPU": (
        "prepare",
        ["--archive", "pvc:a", "--gpus-per-worker", "1"],
        "prepare computes on CPUs: a GPU would idle",
    ),
    "no store": ("evaluate", ["--set", "data.store=null"], "data.store: evaluate reads a store"),
    "no place for a store": ("prepare", ["--archive", "pvc:a", "--set", "data.store=null"], "data.store: prepare needs a place"),
    "run elsewhere": (
        "train",
        ["--set", "run=/home/me/run"],
        "manifest: run is not on the storage that the pods mount; found /home/me/run",
    ),
    "run above": ("train", ["--set", "run=../run"], "manifest: run is not on the storage"),
    "store elsewhere": ("train", ["--set", "data.store=/data/my store"], "manifest: data.store is not on the storage"),
    "no pods": ("train", ["--workers", "0"], "--workers: no pod for train.scale.workers 2: the head takes no work; found 0"),
    "few pods": (
        "train",
        ["--set", "train.scale.cpus_per_worker=3", "--workers", "1"],
        "train.scale: the ranks would never find room",
    ),
    "few GPUs": (
        "train",
        ["--gpus-per-worker", "1", "--workers", "1", "--set", "train.scale.gpus_per_worker=1"],
        "train.scale: the ranks would never find room; found 2 ranks of 1.5 CPUs and 1 GPUs; allowed: 1 pods of 4 CPUs",
    ),
    "no GPUs": ("train", ["--set", "train.scale.gpus_per_worker=1"], "--gpus-per-worker: ranks want GPUs, pods have none"),
    "negative": ("train", ["--gpus-per-worker", "-1"], "workers.gpus: Input should be greater than or equal to 0; found -1"),
    "span": ("train", ["--autoscale", "many"], "workers.autoscale: not MIN:MAX, for example 0:4; found many"),
    "falling span": ("train", ["--autoscale", "4:1"], "--autoscale: fewest are more than most; found 4:1"),
    "two sizes": ("train", ["--autoscale", "1:4", "--workers", "2"], "--workers with --autoscale: a fixed size or a growing one"),
    "queue that grows": (
        "train",
        ["--autoscale", "1:4", "--queue", "q"],
        "--queue with --autoscale: Kueue reserves the whole cluster",
    ),
    "priority alone": ("train", ["--priority", "high"], "--priority: a Kueue priority class without a queue; found high"),
    "queue": ("train", ["--queue", "my queue"], "queue: not a label's value"),
    "queue that keeps": (
        "train",
        ["--queue", "q", "--site-set", "limits.shutdown=false", "--site-set", "limits.ttl_s=0"],
        "limits.shutdown: a queued job has to give its pods back",
    ),
    "ttl, no end": (
        "train",
        ["--site-set", "limits.shutdown=false"],
        "limits: pods that stay for good have no time to live",
    ),
    "deadline": ("train", ["--site-set", "limits.deadline_s=0"], "limits.deadline_s: Input should be greater than 0; found 0"),
    "retries": ("train", ["--site-set", "limits.retries=-1"], "limits.retries: Input should be greater than or equal to 0"),
    "grace": ("train", ["--site-set", "limits.grace_s=5"], "limits.grace_s: Input should be greater than or equal to 60"),
    "quantity": (
        "train",
        ["--site-set", "workers.memory=12 Gigs"],
        "--site-set: workers.memory: not a quantity such as 16Gi or 64Gi; found 12 Gigs",
    ),
    "root": ("train", ["--site-set", "identity.user=0"], "identity.user: Input should be greater than 0"),
    "selector": ("train", ["--site-set", "workers.node_selector={gpu: a b}"], "workers.node_selector.gpu: not a label's value"),
    "toleration": (
        "train",
        ["--site-set", "workers.tolerations=[{key: a, value: b}]"],
        "workers.tolerations: Equal needs a key and a value, Exists has no value; found {key: a, operator: Exists, value: b}",
    ),
    "effect": (
        "train",
        ["--site-set", "head.tolerations=[{key: a, effect: Never}]"],
        "effect: Input should be 'NoSchedule', 'PreferNo",
    ),
    "old Ray": (
        "train",
        ["--site-set", "ray_version=2.51.2"],
        "ray_version: this Ray knows no tokens, or the operator probes its pods with wget, which the image has not; found 2.51.2",
    ),
    "Ray": ("train", ["--site-set", "ray_version=new"], "ray_version: not a Ray version; found new"),
    "override": ("train", ["--site-set", "foo"], "--site-set: an override is KEY=VALUE; found foo; allowed: for example limits."),
    "override of a value": (
        "train",
        ["--site-set", "queue=a", "--site-set", "queue.name=b"],
        "--site-set queue.name=b: queue is a single value",
    ),
    "a group as a value": (
        "train",
        ["--site-set", "workers=3"],
        "--site-set: workers: not a value but settings; found 3",
    ),
    "option": ("train", ["--workers", "-1"], "--workers: workers.count: Input should be greater than or equal to 0; found -1"),
    "site, a folder": ("train", ["--site", "/"], "--site /: a folder, not a file"),
    "search without pods": (
        "tune",
        ["--autoscale", "0:4"],
        "--autoscale: tune shares out the pods that are there",
    ),
    "setting": ("train", ["--site-set", "worker.cpus=2"], "unknown key worker; allowed: did you mean workers?"),
    "site": ("train", ["--site", "nowhere.yaml"], "--site nowhere.yaml: no such file"),
    "kind": ("train", ["--kind", "pod"], "kind: Input should be 'rayjob', 'cluster' or 'job'; found pod"),
    "submission": ("train", ["--submission", "http"], "submission: Input should be 'k8s' or 'sidecar'; found http"),
    "sidecar of nothing": (
        "train",
        ["--kind", "job", "--submission", "sidecar"],
        "--submission sidecar: only a RayJob is submitted",
    ),
    "a Job that grows": ("train", ["--kind", "job", "--autoscale", "1:2"], "--autoscale with --kind job: a plain Job is one pod"),
    "Jobs": ("train", ["--kind", "job", "--workers", "2"], "--workers with --kind job: a plain Job is one pod"),
    "alpha": ("train", ["--cron", "@daily"], "--cron: RayCronJob is behind an alpha gate that is off by default in KubeRay 1.7"),
    "cron": ("train", ["--cron", "0 25 * * *", "--alpha"], "cron.schedule: hour: from 0 to 23, found 25"),
    "cron name": ("train", ["--cron", "@daily", "--alpha", "--name", "a" * 37], "not a name for a RayCronJob"),
    "queued cron": (
        "train",
        ["--cron", "@daily", "--alpha", "--queue", "q"],
        "--queue: the operator gives a RayCronJob's jobs no labels",
    ),
    "no schedule": ("train", ["--alpha"], "--alpha: a gate for a schedule that is not given; allowed: with --cron SCHEDULE"),
    "run setting": ("train", ["--set", "train.epoch=3"], "unknown key train.epoch; allowed: did you mean epochs?"),
}


@pytest.fixture(scope="module")
def contacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Any]]]:
    """A kubeconfig, and the connections that were made to its API server."""
    server, made = socket.create_server(("127.0.0.1", 0)), []

    def listen() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            made.append(address)
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    path = tmp_path_factory.mktemp("kube") / "config"
    path.write_text(kubeconfig(f"http://127.0.0.1:{server.getsockname()[1]}"))
    yield path, made
    server.close()


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_refused_before_contact(
    what: str, contacts: tuple[Path, list[Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, options, line = WRONG[what]
    kube, made = contacts
    monkeypatch.setenv("KUBECONFIG", str(kube))
    with pytest.raises(InputError) as refused:
        app(["manifest", verb, RUN, *GOOD, *options, "--apply"], standalone_mode=False)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2
    assert capsys.readouterr().out == ""
    assert made == []


@pytest.mark.parametrize("missing", ["image", "storage"])
def test_what_has_no_default_is_asked_for(missing: str) -> None:
    given = {"image": IMAGE, "storage": "pvc:mtids-dist"}
    options = [word for key, value in given.items() if key != missing for word in (f"--{key}", value)]
    with pytest.raises(InputError, match=f"--{missing}: no {missing}"):
        app(["manifest", "train", RUN, *options], standalone_mode=False)


def test_a_tag_is_allowed_and_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    app(["manifest", "train", RUN, *GOOD, "--image", "registry.example/mtids-dist:0.1.0"], standalone_mode=False)
    told = capsys.readouterr()
    assert "tag 0.1.0 can be moved" in " ".join(told.err.split())
    assert "registry.example/mtids-dist:0.1.0" in told.out


def cluster(**changes: Any) -> RayClusterSpec:
    template = V1PodTemplateSpec()
    head = HeadGroupSpec(ray_start_params={}, template=template)
    group = {"group_name": "cpu", "replicas": 1, "min_replicas": 1, "max_replicas": 1, "ray_start_params": {}}
    group |= {key: changes.pop(key) for key in list(changes) if key in WorkerGroupSpec.model_fields}
    workers = [WorkerGroupSpec(template=template, **group)]
    return RayClusterSpec(ray_version="2.60.0", head_group_spec=head, worker_group_specs=workers).model_copy(update=changes)


def job(**changes: Any) -> RayJob:
    labels = {"kueue.x-k8s.io/queue-name": "q"} if changes.pop("queued", False) else None
    spec = RayJobSpec(
        entrypoint="true",
        submission_mode="K8sJobMode",
        backoff_limit=0,
        shutdown_after_job_finishes=True,
        ray_cluster_spec=cluster(),
    )
    return RayJob(metadata=V1ObjectMeta(name="a", labels=labels), spec=spec.model_copy(update=changes))


MANY = [cluster(group_name=f"g{number}").worker_group_specs[0] for number in range(8)]
SELECTED: dict[str, Any] = {"ray_cluster_spec": None, "cluster_selector": {"ray.io/cluster": "mine"}}

BROKEN: dict[str, tuple[RayJob, str]] = {
    "two clusters": (job(cluster_selector={"ray.io/cluster": "mine"}), "exactly one of rayClusterSpec and clusterSelector"),
    "no cluster": (job(ray_cluster_spec=None), "exactly one of rayClusterSpec and clusterSelector"),
    "nameless cluster": (job(ray_cluster_spec=None, cluster_selector={"app": "ray"}), "clusterSelector names no cluster"),
    "sidecar elsewhere": (job(**SELECTED, submission_mode="SidecarMode"), "can't submit as a sidecar"),
    "retry elsewhere": (job(**SELECTED, backoff_limit=1), "can't be tried again"),
    "suspend elsewhere": (job(**SELECTED, suspend=True), "can't be suspended"),
    "template of a sidecar": (
        job(submission_mode="SidecarMode", submitter_pod_template=V1PodTemplateSpec()),
        "takes no pod template",
    ),
    "config of a sidecar": (
        job(submission_mode="SidecarMode", submitter_config=SubmitterConfig(backoff_limit=1)),
        "no submitterConfig",
    ),
    "ttl": (job(shutdown_after_job_finishes=False, ttl_seconds_after_finished=10), "no time to live"),
    "suspend": (job(shutdown_after_job_finishes=False, suspend=True), "give its pods back"),
    "deadline": (job(active_deadline_seconds=0), "a deadline is more than 0 s"),
    "start": (job(pre_running_deadline_seconds=-1), "a deadline is more than 0 s"),
    "backoff": (job(backoff_limit=-1), "less than 0"),
    "fewest": (job(ray_cluster_spec=cluster(min_replicas=2)), "0 <= fewest <= now <= most; found 2, 1, 1"),
    "group": (job(ray_cluster_spec=cluster(group_name="G" * 64)), "not a name for a worker group"),
    "version": (
        job(ray_cluster_spec=cluster(ray_version="2.52.1")),
        "wget, which the image has not; found 2.52.1",
    ),
    "queued growth": (
        job(queued=True, ray_cluster_spec=cluster(enable_in_tree_autoscaling=True)),
        "Kueue reserves the whole cluster",
    ),
    "groups": (job(queued=True, ray_cluster_spec=cluster(worker_group_specs=MANY)), "too many groups for one Kueue workload"),
    "twins": (job(ray_cluster_spec=cluster(worker_group_specs=MANY[:1] * 2)), "two worker groups of one name"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_operators_rules_hold_for_any_ray_job(what: str) -> None:
    broken, line = BROKEN[what]
    with pytest.raises(InputError, match=line):
        check_ray_object(broken)


def test_what_the_operator_allows_passes() -> None:
    check_ray_object(job())
    check_ray_object(job(**SELECTED))
    check_ray_object(job(ray_cluster_spec=cluster(auth_options=AuthOptions(mode="disabled"), ray_version="2.40.0")))
    check_ray_object(RayCluster(metadata=V1ObjectMeta(name="a" * 53), spec=cluster()))


@pytest.mark.parametrize("schedule", ["* * * * *", "*/5 0-6 1,15 jan-mar mon-fri", "? 3 * * SUN", "@daily", "@every 1h30m"])
def test_schedules_that_the_operator_reads(schedule: str) -> None:
    assert check_schedule(schedule) == schedule


@pytest.mark.parametrize(
    "schedule", ["* * * *", "@often", "60 * * * *", "5-1 * * * *", "*/0 * * * *", "TZ=UTC * * * * *", "* * * * 7", "a * * * *"]
)
def test_schedules_that_it_does_not(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"found|fields|time zone"):
        check_schedule(schedule)


def test_a_missing_client_is_one_line() -> None:
    code = "import sys; sys.modules['kubernetes'] = None; from mtids_dist.cli import main; main()"
    command = [sys.executable, "-c", code, "manifest", "train", RUN, *GOOD]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "mtids-dist: manifest: the Kubernetes client is not installed; allowed: pip install 'mtids-dist[kubernetes]'"
    ]

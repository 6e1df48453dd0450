"""Every manifest of the grid passes the strict schemas and means what it should."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import typer
import yaml
from manifest_cases import (
    KUBE,
    ROOT,
    Case,
    allowed_cases,
    as_the_operator_makes_them,
    cluster_spec,
    complaints,
    forbidden,
    grid,
    needs_schemas,
    ray_job_spec,
    templates,
    unrestricted,
)

from mtids_dist.cli import app
from mtids_dist.cli.kubernetes import run_verbs
from mtids_dist.config import parse_run
from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes import cautions, render, to_yaml
from mtids_dist.submit.kubernetes.work import work_of

RUN_VERBS = ("train", "tune")


@pytest.fixture(scope="module")
def rendered() -> list[tuple[Case, list[dict[str, Any]]]]:
    return [(case, case.documents()) for case in allowed_cases()]


@needs_schemas
def test_every_document_passes_the_strict_schema_of_its_kind(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    documents = [(case, document) for case, found in rendered for document in found]
    wrong = {f"{case} {document['kind']}": complaints(document) for case, document in documents if complaints(document)}
    kinds = {kind: sum(d["kind"] == kind for _, d in documents) for kind in sorted({d["kind"] for _, d in documents})}
    print(f"{len(documents)} documents of {len(rendered)} manifests: {kinds}")
    assert len(documents) >= 200
    assert wrong == {}


@needs_schemas
def test_the_schemas_find_what_is_wrong() -> None:
    broken = yaml.safe_load((KUBE / "broken_rayjob.yaml").read_text())
    assert len(complaints(broken)) >= 5
    policy = next(d for d in Case("train").documents() if d["kind"] == "NetworkPolicy")
    assert complaints(policy | {"spec": policy["spec"] | {"podselector": {}}}) != []


def test_a_queue_with_autoscaling_is_refused_with_the_reason() -> None:
    refused = [case for case in grid() if forbidden(case)]
    assert len(refused) >= 20
    for case in refused:
        with pytest.raises(InputError, match="Kueue reserves the whole cluster when it admits it"):
            case.documents()


def test_the_same_input_gives_the_same_bytes() -> None:
    for case in allowed_cases()[::7]:
        assert to_yaml(case.documents()) == to_yaml(case.documents())


def test_another_process_with_another_hash_seed_gives_the_same_bytes() -> None:
    code = "import sys, manifest_cases as m; from mtids_dist.submit.kubernetes import to_yaml;"
    code += "sys.stdout.write(to_yaml(m.Case('tune', {'workers.autoscale': '1:4', 'workers.gpus': 1}).documents()))"
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}"},
        ).stdout
        for seed in ("1", "2")
    }
    assert made == {to_yaml(Case("tune", {"workers.autoscale": "1:4", "workers.gpus": 1}).documents()).encode()}


def test_every_pod_is_restricted_also_with_what_the_operator_adds(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    pods = 0
    for case, documents in rendered:
        for role, pod in as_the_operator_makes_them(documents[-1]).items():
            pods += 1
            sidecar = role == "head" and "submission" in case.settings
            expected = {"ray-job-submitter"} if sidecar else set()
            assert {line.partition(":")[0] for line in unrestricted(pod)} == expected, (str(case), role)
            writable = [
                c["name"]
                for c in [*pod.get("initContainers", []), *pod["containers"]]
                if c["name"] != "ray-job-submitter" and not c["securityContext"].get("readOnlyRootFilesystem")
            ]
            assert writable == [], (str(case), role)
    print(f"{pods} pods")


def test_the_sidecar_that_a_restricted_namespace_refuses_is_spoken_of() -> None:
    for case in (Case("train"), Case("train", {"submission": "sidecar"})):
        said = list(cautions(case.config(), work_of(case.verb, case.run(), case.config(), run_verbs=RUN_VERBS)))
        assert any("restricted" in line for line in said) == ("submission" in case.settings)


def test_every_mount_has_its_volume_and_every_volume_its_mount(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        for role, pod in as_the_operator_makes_them(documents[-1]).items():
            containers = [*pod.get("initContainers", []), *pod["containers"]]
            mounts = [mount for container in containers for mount in container.get("volumeMounts", [])]
            assert {m["name"] for m in mounts} == {v["name"] for v in pod["volumes"]}, (str(case), role)
            for container in containers:
                paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
                assert len(set(paths)) == len(paths)


def mount_at(pod: dict[str, Any], path: str) -> dict[str, Any]:
    """The mount that a path in the main container lies on."""
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
    return max((m for at, m in mounts.items() if PurePosixPath(path).is_relative_to(at)), key=lambda m: len(m["mountPath"]))


def test_inputs_are_read_only_and_outputs_are_not(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        if documents[-1]["kind"] == "RayCluster":
            continue
        run = yaml.safe_load(documents[1]["data"]["run.yaml"])
        for role, template in templates(documents[-1]).items():
            if role == "submitter":
                continue
            pod = template["spec"]
            assert mount_at(pod, run["data"]["store"]).get("readOnly", False) == (case.verb != "prepare"), (str(case), role)
            assert not mount_at(pod, run["run"]).get("readOnly", False)
            if case.verb == "prepare":
                archive = mount_at(pod, "/mnt/archive/nodes.csv")
                assert archive["readOnly"]
                assert archive["subPath"] == "ct"
                claim = next(v for v in pod["volumes"] if v["name"] == archive["name"])["persistentVolumeClaim"]
                assert claim == {"claimName": "dicom", "readOnly": True}
            else:
                assert all(v["name"] != "archive" for v in pod["volumes"])


def test_a_cluster_that_stays_writes_stores_and_reads_the_archive() -> None:
    settings = {"kind": "cluster", "archive": "pvc:dicom"}
    account, policy, cluster = Case("train", settings).documents()
    assert (account["kind"], policy["kind"]) == ("ServiceAccount", "NetworkPolicy")
    for template in templates(cluster).values():
        assert not mount_at(template["spec"], "/mnt/storage/runs/mtids/store").get("readOnly", False)
        assert mount_at(template["spec"], "/mnt/archive/x")["readOnly"]


def test_the_run_in_the_config_map_is_the_resolved_run(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        if documents[-1]["kind"] == "RayCluster":
            continue
        work = work_of(case.verb, case.run(), case.config(), run_verbs=RUN_VERBS)
        tree = yaml.safe_load(documents[1]["data"]["run.yaml"])
        assert parse_run(tree, where="ConfigMap") == parse_run(work.run.resolved(), where="work")
        mine = copy.deepcopy(case.run().resolved())
        for tree_ in (tree, mine):  # what the cluster decides
            tree_["run"] = tree_["data"]["store"] = None
            tree_["train"]["scale"] |= {"gpus_per_worker": None, "cpus_per_worker": None}
        assert tree == mine


def test_the_entrypoint_is_a_command_line_that_the_application_reads(
    rendered: list[tuple[Case, list[dict[str, Any]]]],
) -> None:
    group = typer.main.get_command(app)
    for case, documents in rendered:
        work = documents[-1]
        if work["kind"] == "RayCluster":
            continue
        words = (
            work["spec"]["template"]["spec"]["containers"][0]["command"]
            if work["kind"] == "Job"
            else ray_job_spec(work)["entrypoint"].split()
        )
        assert words[:4] == ["python", "-m", "mtids_dist", case.verb]
        verb = group.commands[case.verb]  # type: ignore[attr-defined]
        assert verb.make_context(case.verb, words[4:]).params


def test_what_ray_and_the_ranks_find_in_their_environment(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        for role, template in templates(documents[-1]).items():
            found = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
            if role == "submitter":
                continue
            assert found["RAY_AUTH_MODE"] == "token"
            assert found.get("MTIDS_DIST_ADDRESS") == (None if role == "job" else "auto"), str(case)
            if role != "job":
                assert found["NCCL_SOCKET_IFNAME"] == found["GLOO_SOCKET_IFNAME"] == "eth0"
                assert int(found["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] or 0) >= 600


def test_no_secret_and_no_value_of_one(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for _, documents in rendered:
        assert all(document["kind"] != "Secret" for document in documents)
        for container in (c for t in templates(documents[-1]).values() for c in t["spec"]["containers"]):
            for variable in container["env"]:
                secret = any(word in variable["name"] for word in ("TOKEN", "KEY", "PASSWORD", "SECRET"))
                assert not (secret and variable.get("value")), variable


def test_only_the_autoscaler_has_a_token_of_the_account(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    for case, documents in rendered:
        for pod in as_the_operator_makes_them(documents[-1]).values():
            assert pod["automountServiceAccountToken"] is False
            holders = [c["name"] for c in pod["containers"] if any(m["mountPath"] == path for m in c.get("volumeMounts", []))]
            grows = "workers.autoscale" in case.settings and any(c["name"] == "ray-head" for c in pod["containers"])
            assert holders == (["autoscaler"] if grows else []), str(case)


def test_pods_have_the_time_that_their_hook_takes(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for _, documents in rendered:
        for role, template in templates(documents[-1]).items():
            hook = template["spec"]["containers"][0].get("lifecycle")
            assert (hook is not None) == (role not in ("job", "submitter"))
            if hook is not None:
                command = hook["preStop"]["exec"]["command"]
                assert command[:3] == ["python", "-m", "mtids_dist.in_pod.stop_run"]
                assert float(command[-1]) < template["spec"]["terminationGracePeriodSeconds"]
                environment = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
                assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == command[-1]


def policy_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return next(d for d in documents if d["kind"] == "NetworkPolicy")["spec"]


def test_the_network_policy_lets_in_siblings_and_the_operator_alone(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        policy = policy_of(documents)
        siblings = {"podSelector": policy["podSelector"]}
        for role, template in templates(documents[-1]).items():
            assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), (str(case), role)
        if documents[-1]["kind"] == "Job":
            assert policy["ingress"] == []
            continue
        assert policy["ingress"][0]["from"] == [siblings]
        (operator,) = policy["ingress"][1]["from"]
        assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kuberay-operator"}
        assert [port["port"] for port in policy["ingress"][1]["ports"]] == [8265]
        assert len(policy["ingress"]) == 2
        assert all(rule.get("to") or rule.get("ports") for rule in policy["egress"])
        open_ports = {port["port"] for rule in policy["egress"] if "to" not in rule for port in rule["ports"]}
        assert open_ports == ({443, 6443} if "workers.autoscale" in case.settings else set())


def test_prometheus_reaches_the_metrics_ports_where_its_namespace_is_named() -> None:
    policy = policy_of(Case("train", {"network.monitoring_namespace": "monitoring"}).documents())
    rule = policy["ingress"][-1]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert {port["port"] for port in rule["ports"]} == {8080, 44217, 44227}


def open_to_anybody(case: Case) -> list[int]:
    """Ports that a policy lets pods reach wherever they are."""
    return [port["port"] for rule in policy_of(case.documents())["egress"] if "to" not in rule for port in rule["ports"]]


def test_a_bucket_may_listen_where_it_likes() -> None:
    bucket = {"kind": "job", "storage": "s3://bucket/runs", "store": "pvc:stores/lidc"}
    assert open_to_anybody(Case("train", bucket)) == [443]
    assert open_to_anybody(Case("train", {**bucket, "network.bucket_ports": [9000, 443]})) == [9000, 443]


def test_the_api_server_can_be_named() -> None:
    grows = {"workers.autoscale": "1:4"}
    assert open_to_anybody(Case("train", grows)) == [443, 6443]
    named = Case("train", {**grows, "network.api_server_cidr": "10.0.0.1/32"})
    assert open_to_anybody(named) == []
    rule = policy_of(named.documents())["egress"][-1]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert [port["port"] for port in rule["ports"]] == [443, 6443]


def test_a_store_on_a_claim_is_not_copied_to_a_bucket() -> None:
    case = Case("prepare", {"kind": "job", "storage": "s3://bucket/pre", "store": "pvc:st/sub"})
    (pod,) = (template["spec"] for template in templates(case.documents()[-1]).values())
    assert "initContainers" not in pod
    assert "/mnt/store" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert open_to_anybody(case) == []
    assert not any(
        "bucket" in line for line in cautions(case.config(), work_of("prepare", case.run(), case.config(), run_verbs=[]))
    )


@pytest.mark.parametrize("nodes", ["nodes.csv", "tables/a.csv", "/mnt/archive/tables/a.csv"])
def test_the_node_table_is_below_the_archives_mount(nodes: str) -> None:
    words = ray_job_spec(Case("prepare", {"nodes": nodes}).documents()[-1])["entrypoint"].split()
    assert words[5] == f"/mnt/archive/{nodes.removeprefix('/mnt/archive/')}"


def test_queued_work_waits_and_gives_its_pods_back(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        work, labels = documents[-1], documents[-1]["metadata"]["labels"]
        queued = "queue" in case.settings
        assert work["spec"].get("suspend", False) == queued, str(case)
        assert labels.get("kueue.x-k8s.io/queue-name") == case.settings.get("queue")
        assert labels.get("kueue.x-k8s.io/priority-class") == case.settings.get("priority")
        if queued and work["kind"] == "RayJob":
            assert work["spec"]["shutdownAfterJobFinishes"]


def test_the_head_takes_no_work_and_parameters_are_strings(rendered: list[tuple[Case, list[dict[str, Any]]]]) -> None:
    for case, documents in rendered:
        if documents[-1]["kind"] == "Job":
            continue
        cluster = cluster_spec(documents[-1])
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["authOptions"] == {"mode": "token"}
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        assert all(isinstance(v, str) for group in groups for v in group["rayStartParams"].values()), str(case)
        gpus = [g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in cluster["workerGroupSpecs"]]
        assert any("nvidia.com/gpu" in limits for limits in gpus) == ("workers.gpus" in case.settings)


def test_names_that_are_not_given_come_of_the_verb_and_the_run_folder() -> None:
    case = Case("train", overrides=("run=runs/" + "x" * 60,))
    name = case.documents()[-1]["metadata"]["name"]
    assert name.startswith("train-runs-xxx")
    assert len(name) <= 47
    assert name != Case("train", overrides=("run=runs/" + "x" * 61,)).documents()[-1]["metadata"]["name"]


def test_each_kind_has_default_names_of_its_own() -> None:
    """They share account and policy by name, and the operator names the Job that submits a RayJob after it."""
    cron = {"cron.schedule": "@daily", "cron.alpha": True}
    kinds = [Case(verb, more) for verb in ("train", "tune") for more in ({}, {"kind": "job"}, {"kind": "cluster"}, cron)]
    named = [(document["kind"], document["metadata"]["name"]) for case in kinds for document in case.documents()]
    assert len(set(named)) == len(named)
    works = [case.documents()[-1]["metadata"]["name"] for case in kinds]
    assert len(set(works)) == len(works)
    for longest, more in ((36, cron), (47, {"kind": "job"})):
        name = Case("train", more, ("run=runs/" + "x" * 60,)).documents()[-1]["metadata"]["name"]
        assert len(name) == longest


def test_another_description_has_another_config_map_and_none_is_changed() -> None:
    def maps(*overrides: str, **settings: str) -> tuple[str, str]:
        documents = Case("train", settings, overrides).documents(name="a")
        (found,) = [document for document in documents if document["kind"] == "ConfigMap"]
        assert found["immutable"] is True
        name = found["metadata"]["name"]
        assert name.endswith(documents[-1]["metadata"]["labels"]["mtids-dist/run"])
        mounted = {
            v["configMap"]["name"] for t in templates(documents[-1]).values() for v in t["spec"]["volumes"] if "configMap" in v
        }
        assert mounted == {name}
        return name, found["data"]["run.yaml"]

    assert maps() == maps(priority="high", queue="q")
    assert maps()[0] != maps("train.epochs=4")[0]
    assert maps()[0] == f"a-run-{hashlib.sha256(maps()[1].encode()).hexdigest()[:10]}"


def test_a_verb_that_is_added_to_the_application_needs_no_new_code_here() -> None:
    assert {"train", "tune"} <= run_verbs()
    assert not {"config", "manifest", "prepare"} & run_verbs()
    _, documents = render("study", Case("train").run(), Case("study").config(), run_verbs=["study"])
    assert documents[-1]["spec"]["entrypoint"] == "python -m mtids_dist study /etc/mtids-dist/run.yaml"


def test_ranks_find_room_on_the_pods_one_each() -> None:
    for count, ranks, cpus in ((2, 2, 3.0), (2, 4, 1.5), (4, 4, 3.0), (1, 4, 0.75)):
        case = Case("train", {"workers.count": count}, (f"train.scale.workers={ranks}",))
        scale = yaml.safe_load(case.documents()[1]["data"]["run.yaml"])["train"]["scale"]
        assert scale["cpus_per_worker"] == cpus
        assert scale["gpus_per_worker"] == 0.0


def test_json_and_yaml_say_the_same() -> None:
    documents = Case("train").documents()
    assert list(yaml.safe_load_all(to_yaml(documents))) == json.loads(json.dumps(documents))

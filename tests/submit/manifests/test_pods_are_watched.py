"""Prometheus' discovery of pods, against the pods and the policies of our manifests."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import pytest
import yaml
from manifest_cases import ROOT, Case, complaints, needs_schemas, templates

from mtids_dist.observe.monitoring import monitoring_files

MONITORED = {"network.monitoring_namespace": "monitoring"}
CASES = [
    Case("train", MONITORED),
    Case("train", {**MONITORED, "workers.gpus": 1}),
    Case("tune", {**MONITORED, "kind": "cluster"}),
]


def scrape() -> dict[str, Any]:
    config = yaml.safe_load((monitoring_files() / "prometheus-kubernetes.yml").read_text())
    (job,) = config["scrape_configs"]
    return dict(job)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_port_that_is_scraped_is_let_in_and_every_one_let_in_is_scraped(case: Case) -> None:
    (discovery,) = scrape()["kubernetes_sd_configs"]
    (selector,) = discovery["selectors"]
    key, _, value = selector["label"].partition("=")
    (kept,) = [rule["regex"] for rule in scrape()["relabel_configs"] if rule.get("action") == "keep"]
    documents = case.documents()
    policy = next(document for document in documents if document["kind"] == "NetworkPolicy")
    assert discovery["namespaces"]["names"] == [policy["metadata"]["namespace"]]
    let_in = {port["port"] for port in policy["spec"]["ingress"][-1]["ports"]}
    scraped = set()
    for template in templates(documents[-1]).values():
        assert template["metadata"]["labels"][key] == value
        ports = [port for container in template["spec"]["containers"] for port in container.get("ports", [])]
        scraped |= {port["containerPort"] for port in ports if re.fullmatch(kept, port["name"])}
    assert scraped == let_in == {8080, 44217, 44227}


@needs_schemas
def test_the_rights_in_the_documentation_are_those_that_pod_discovery_needs() -> None:
    blocks = [dedent(b.removeprefix("yaml")) for b in (ROOT / "docs/monitoring.md").read_text().split("```")[1::2]]
    (rights,) = [list(yaml.safe_load_all(block)) for block in blocks if "kind: Role" in block]
    assert [document["kind"] for document in rights] == ["Role", "RoleBinding"]
    assert [complaints(document) for document in rights] == [[], []]
    role, binding = rights
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    (discovery,) = scrape()["kubernetes_sd_configs"]
    assert {document["metadata"]["namespace"] for document in rights} == set(discovery["namespaces"]["names"])
    assert binding["roleRef"]["name"] == role["metadata"]["name"]

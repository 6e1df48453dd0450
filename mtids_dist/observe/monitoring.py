"""The files that Prometheus and Grafana need, with a cluster's own address in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from mtids_dist.errors import InputError

DISCOVERY = "/api/prometheus/sd"
PROMETHEUS, RULES, KUSTOMIZATION = Path("prometheus.yml"), Path("rules", "mtids.yml"), Path("kustomization.yaml")
ON_KUBERNETES = Path("prometheus-kubernetes.yml")
"""For a Prometheus in Kubernetes, which finds pods by itself: Ray's own discovery asks for a token, and no policy lets it in."""
DASHBOARDS = Path("grafana", "dashboards")
PROVIDER, SOURCE = (Path("grafana", "provisioning", kind, "mtids.yml") for kind in ("dashboards", "datasources"))


def monitoring_files() -> Path:
    """Where they lie: in an installed package beside this module, in a checkout under cluster/."""
    installed = Path(__file__).with_name("monitoring_files")
    return installed if installed.exists() else Path(__file__).parents[2] / "cluster" / "monitoring"


def write_monitoring(folder: Path, address: str, token_file: Path | None = None) -> Path:
    """Writes them to `folder`, over those that an earlier call has written there.

    :param address: of Ray's dashboard, as Prometheus reaches it.
    :param token_file: where Prometheus will find the cluster's token; None for a cluster without authentication.
    :raises InputError: something else than a folder is there.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("the files need a folder, this is a file", where=str(folder))
    source, folder = monitoring_files(), folder.absolute()
    shutil.copytree(source / DASHBOARDS, folder / DASHBOARDS, dirs_exist_ok=True)
    for name in (ON_KUBERNETES, RULES, KUSTOMIZATION, SOURCE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    _rewrite(source / PROMETHEUS, folder / PROMETHEUS, lambda tree: _point_at(tree, address, token_file))
    (folder / PROVIDER).parent.mkdir(exist_ok=True)
    _rewrite(source / PROVIDER, folder / PROVIDER, lambda tree: _show(tree, folder / DASHBOARDS))
    return folder


def _point_at(tree: Any, address: str, token_file: Path | None) -> None:
    (discovery,) = tree["scrape_configs"][0]["http_sd_configs"]
    discovery["url"] = address + DISCOVERY
    if token_file is not None:
        discovery["authorization"] = {"type": "Bearer", "credentials_file": str(token_file.absolute())}


def _show(tree: Any, dashboards: Path) -> None:
    tree["providers"][0]["options"]["path"] = str(dashboards)


def _rewrite(source: Path, target: Path, change: Any) -> None:
    tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    change(tree)
    target.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")

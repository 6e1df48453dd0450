"""Network namespaces joined by a bridge, each with an interface of its own: what a process sends there is what eth0 counts.

Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

NETWORK = "10.78.0."
QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""No lines of the profiler's and of sockets about names that addresses don't have."""


@dataclass(frozen=True)
class Node:
    """A namespace with an address."""

    name: str
    address: str

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """A process in it, whose gloo talks through eth0; its /sys shows the namespace's own interfaces."""
        words = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(words, env={**os.environ, **QUIET, "GLOO_SOCKET_IFNAME": "eth0"}, stdout=subprocess.PIPE)


def why_not() -> str | None:
    """What keeps namespaces from being made here, if anything; one is made and removed."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := next((tool for tool in ("ip", "tc") if shutil.which(tool) is None), None):
        return f"needs `{missing}` (iproute2)"
    try:
        with nodes(1, megabits=1000):
            return None
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}` is not allowed here"


@contextmanager
def nodes(count: int, megabits: int) -> Iterator[list[Node]]:
    """So many of them, each sending at most so many megabits a second."""
    prefix = f"mb{os.getpid() % 100_000}"
    bridge = f"{prefix}br"
    made = [Node(f"{prefix}n{i}", f"{NETWORK}{10 + i}") for i in range(count)]
    try:
        _ip(f"link add {bridge} type bridge", f"link set {bridge} up")
        for i, node in enumerate(made):
            _ip(
                f"netns add {node.name}",
                f"link add {prefix}v{i} type veth peer name eth0 netns {node.name}",
                f"link set {prefix}v{i} master {bridge} up",
                f"-n {node.name} link set lo up",
                f"-n {node.name} addr add {node.address}/24 dev eth0",
                f"-n {node.name} link set eth0 up",
            )
            shape = f"tc -n {node.name} qdisc add dev eth0 root tbf rate {megabits}mbit burst 256kb latency 100ms"
            subprocess.run(shape.split(), check=True)
        yield made
    finally:
        links = [bridge, *(f"{prefix}v{i}" for i in range(count))]  # a namespace may outlive its name by a moment
        for words in (*(["link", "del", link] for link in links), *(["netns", "del", node.name] for node in made)):
            subprocess.run(["ip", *words], stderr=subprocess.DEVNULL, check=False)


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)

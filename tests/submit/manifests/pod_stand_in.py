"""A pod without Kubernetes: namespaces of its own, a user without rights, a read-only root, and the mounts of a manifest."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from manifest_cases import ROOT

USER = 1000
TOOLS = ("unshare", "setpriv", "ip", "mount")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs root and {', '.join(TOOLS)}"
)

# Mounts first: what they show is covered by /tmp and the read-only root afterwards.
INSIDE = """
set -euo pipefail
mount --make-rprivate /
hostname pod; ip link set lo up; ip link add eth0 type veth peer name far0; ip link set far0 up
ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; ip route add default dev eth0
cp -a /etc {scratch}/etc
printf "127.0.0.1 localhost\n10.0.0.2 pod\n" > {scratch}/etc/hosts
mkdir -p {scratch}/etc/mtids-dist {scratch}/python {scratch}/storage
cp {run_yaml} {scratch}/etc/mtids-dist/run.yaml; mount --bind {scratch}/etc /etc
mount --bind {python} {scratch}/python
mount -t tmpfs -o mode=755 tmpfs /root; mkdir -p {python}; mount --move {scratch}/python {python}
mount -t tmpfs -o mode=755 tmpfs /mnt; mkdir /mnt/storage
chown -R {user} {scratch}/storage; mount --bind {scratch}/storage /mnt/storage
mount --bind {scratch}/storage/{store} /mnt/storage/{store}; mount -o remount,bind,ro /mnt/storage/{store}
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -o remount,bind,ro /
cd /
exec setpriv --reuid={user} --regid={user} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \\
  env -i {environment} bash -euo pipefail -c {script}
"""


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """What the container's processes find, with this machine's package in the place of the image's."""
    own = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    return {
        **own,
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_in_pod(
    script: str, *, scratch: Path, run_yaml: Path, store: str, environment: dict[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Runs a bash script in the pod; `scratch`/storage is its storage, in which `store` is mounted read-only."""
    inside = INSIDE.format(
        scratch=shlex.quote(str(scratch)),
        run_yaml=shlex.quote(str(run_yaml)),
        python=shlex.quote(sys.base_prefix),
        store=shlex.quote(store),
        user=USER,
        environment=" ".join(shlex.quote(f"{key}={value}") for key, value in environment.items()),
        script=shlex.quote(script),
    )
    command = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run([*command, "bash", "-c", inside], capture_output=True, text=True, timeout=timeout_s, check=False)

"""Whether paths lead to the same files from every node of a cluster: found out before work starts, not an hour later."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mtids_dist.errors import InputError, WorkFailedError

NAMES, FIRST_BYTES = 1000, 1 << 20
"""How much of a folder or file is looked at."""
MANIFEST = "manifest.json"
"""What tells one store from another."""
MARK_SEEN = "seen"
VISIBLE_IN_S = 10.0
"""A new file may take a moment to be seen over a network file system."""
ANSWER_S = 180.0
"""A node that has run nothing yet has to start a process."""
WANTED = "storage that every node sees under the same path"


def check_shared(*, writes: Mapping[str, Path], reads: Mapping[str, Path]) -> None:
    """Has every node of the connected Ray that can hold workers look at paths, and compares that with what is seen here.

    Nothing is done where there is only one node, or no Ray. Nodes that join later are not known yet.

    :param writes: setting -> absolute path of a folder that all nodes write to. It need not be there yet: the nearest one
        above it is.
    :param reads: setting -> absolute path that all nodes read. Copies that are alike are as good as one.
    :raises InputError: naming the setting, the path and the node that sees something else.
    :raises WorkFailedError: a node could not look.
    """
    nodes = _other_nodes()
    if not nodes:
        return
    with _marks(writes) as marks:
        questions = {name: _Question(path, fingerprint(path)) for name, path in reads.items()}
        questions |= {name: _Question(mark, None) for name, mark in marks.items()}
        for node, differing in _ask(nodes, questions).items():
            for name, seen in differing.items():
                path = {**reads, **writes}[name]
                raise InputError(f"{path} is not the same on node {node.name}", where=name, found=f"{seen} there", allowed=WANTED)


def fingerprint(path: Path) -> str:
    """What tells a path's contents from others, at a small cost: a store's manifest, a folder's names, a file's beginning."""
    if path.is_dir() and (path / MANIFEST).exists():
        return f"a store ({_digest((path / MANIFEST).read_bytes())})"
    if path.is_dir():
        names = sorted(entry.name for entry in islice(os.scandir(path), NAMES))
        return f"a folder ({_digest(chr(0).join(names).encode())})"
    if path.is_file():
        with path.open("rb") as file:
            return f"a file of {path.stat().st_size} bytes ({_digest(file.read(FIRST_BYTES))})"
    return "nothing"


@dataclass(frozen=True)
class _Node:
    id: str
    name: str


@dataclass(frozen=True)
class _Question:
    """A path, and what should be seen there; None: a file that was made a moment ago, in a folder that can be written to."""

    path: Path
    expected: str | None


def _other_nodes() -> list[_Node]:
    import ray

    if not ray.is_initialized():
        return []
    here = ray.get_runtime_context().get_node_id()
    return [
        _Node(node["NodeID"], f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})")
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here and node["Resources"].get("CPU", 0) > 0
    ]


@contextmanager
def _marks(writes: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """A new file in each folder, or in the nearest one above it."""
    made: dict[str, Path] = {}
    try:
        for name, path in writes.items():
            folder = next(each for each in (path, *path.parents) if each.is_dir())
            made[name] = folder / f".mtids-shared-{secrets.token_hex(8)}"
            try:
                made[name].touch(exist_ok=False)
            except OSError as error:
                raise InputError(f"{folder} can't be written to: {error.strerror}", where=name, found=path) from None
        yield made
    finally:
        for mark in made.values():
            with suppress(OSError):
                mark.unlink()


def _ask(nodes: list[_Node], questions: Mapping[str, _Question]) -> dict[_Node, dict[str, str]]:
    """Node -> setting -> what it sees there, where that is not what it should be."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0)(_look)
    asked: dict[_Node, Any] = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(dict(questions))
        for node in nodes
    }
    return {node: _answer(node, answer) for node, answer in asked.items()}


def _answer(node: _Node, answer: Any) -> dict[str, str]:
    import ray
    from ray.exceptions import RayError

    try:
        return dict(ray.get(answer, timeout=ANSWER_S))
    except RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise WorkFailedError(f"node {node.name} could not be asked whether it sees the same files: {reason}") from error


def _look(questions: Mapping[str, _Question]) -> dict[str, str]:
    """Runs on every other node: what differs."""
    seen = {
        name: _see_mark(question.path) if question.expected is None else fingerprint(question.path)
        for name, question in questions.items()
    }
    return {name: seen[name] for name, question in questions.items() if seen[name] != (question.expected or MARK_SEEN)}


def _see_mark(mark: Path) -> str:
    end = time.monotonic() + VISIBLE_IN_S
    while not mark.exists():
        if time.monotonic() > end:
            return "another folder" if mark.parent.is_dir() else "no such folder"
        time.sleep(0.2)
    return MARK_SEEN if os.access(mark.parent, os.W_OK) else "a folder that can't be written to"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]

"""One rank of a measurement between namespaces; `ranks.py` starts it. Prints what it saw as one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from memory import peak_bytes
from nets import Net, batch
from torch import Tensor
from ways import OURS, Step

from mtids_dist.balance.gramians.exact import BUCKETS

SENT = Path("/sys/class/net/eth0/statistics/tx_bytes")
SEED = 0
SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 22)
"""Numbers in the tensors that collectives are timed with."""


def seconds_of(work: Callable[[], object]) -> float:
    """Of a piece of work that all ranks begin together."""
    dist.barrier()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def exchange(mine: Tensor, sent: Tensor) -> None:
    """An all-to-all in as many buckets as `ExactGramian` has under way."""
    buckets = zip(mine.chunk(BUCKETS), sent.chunk(BUCKETS), strict=True)
    works = [dist.all_to_all_single(received, bucket, async_op=True) for received, bucket in buckets]
    for work in works:
        work.wait()


def collectives(rounds: int) -> list[dict[str, Any]]:
    """Median seconds of each collective that balancing uses, by size."""
    lines = []
    for size in SIZES:
        numbers, room = torch.randn(size), torch.empty(size)
        for name, work in (
            ("all_reduce", lambda n=numbers: dist.all_reduce(n)),
            ("all_to_all", lambda n=numbers, r=room: exchange(r, n)),
        ):
            seconds = [seconds_of(work) for _ in range(rounds + 1)][1:]
            lines.append({"collective": name, "numbers": size, "seconds": median(seconds)})
    return lines


def steps(trunk: str, tasks: int, rows: int, side: int, rounds: int) -> dict[str, dict[str, float]]:
    """Bytes, seconds and peak bytes of a step, by way, interleaved."""
    ways = {name: Step(name, Net(trunk, tasks, SEED)) for name in ("plain", *OURS)}
    data = batch(rows, side, tasks, SEED + dist.get_rank())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sent = dict.fromkeys(ways, 0)
    for turn in range(rounds + 2):
        for name, step in ways.items():
            dist.barrier()
            before = int(SENT.read_text())
            took = seconds_of(lambda step=step: step(*data))
            dist.barrier()
            if turn >= 2:  # DistributedDataParallel rebuilds its buckets after the first step
                seconds[name].append(took)
                sent[name] += int(SENT.read_text()) - before
    return {
        name: {
            "bytes": sent[name] / rounds,
            "seconds": median(seconds[name]),
            "ratio": median(mine / plain for mine, plain in zip(seconds[name], seconds["plain"], strict=True)),
            "peak_bytes": peak_bytes(lambda step=step: step(*data)),
        }
        for name, step in ways.items()
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("rank", "ranks", "tasks", "rows", "side", "rounds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--trunk", required=True)
    parser.add_argument("--meet", required=True, help="tcp://address:port of rank 0")
    o = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=o.meet, rank=o.rank, world_size=o.ranks)
    found = {"collectives": collectives(o.rounds), "steps": steps(o.trunk, o.tasks, o.rows, o.side, o.rounds)}
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps(found), flush=True)
    os._exit(0)  # as tests/ranks.py: gloo's threads may not survive Python's way out


if __name__ == "__main__":
    main()

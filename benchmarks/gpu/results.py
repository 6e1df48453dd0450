"""The measured document as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]

WAYS = ("exact", "sketch", "representation", "between", "TorchJD UPGrad", "K backwards, PCGrad")


def page(document: Line) -> str:
    """Return the page: where it was measured and how, then a table for each part that was."""
    lines = ["# What training costs on a GPU", "", *_where(document)]
    if "step" in document:
        lines += ["", "## A training step of configs/mtids.yaml", "", STEP, "", *_steps(document["step"])]
    if "balance" in document:
        lines += ["", "## Balancing beside its peers", "", BALANCE, "", *_ratios(document["balance"])]
    return "\n".join(lines) + "\n"


STEP = (
    "Through the product's own learner, one rank, random crops that lie on the device: the median of the timed steps, each "
    "waited for; the peak of live tensors above what was there before; kernels and the share of wall time that the GPU is busy "
    "by torch's profiler, over steps of their own. As shipped: bf16, ZeRO 2, DD-GB with the exact Gramian; bf16 keeps its fp32 "
    "weights from stage 1 on, so that stage 0 is measured in fp32."
)
BALANCE = (
    "Networks and ways of `benchmarks/balance`, without DeepSpeed: each way's seconds by a plain step's of the same round, the "
    "median of interleaved rounds, the device waited for after each step. `between`: a step between two that find weights."
)


def _where(document: Line) -> list[str]:
    head = ["card", "driver", "torch", "CUDA", "DeepSpeed", "Python", "fp32", "seed", "rounds", "command"]
    keys = ["card", "driver", "torch", "cuda", "deepspeed", "python", "tf32", "seed", "rounds"]
    return _table(head, [[*(str(document[key]) for key in keys), f"`{document['command']}`"]])


def _steps(lines: Sequence[Line]) -> list[str]:
    head = ["mode", "precision", "ZeRO", "batch", "crops", "ms a step", "crops/s", "peak GiB", "kernels a step", "GPU busy"]
    refused = [f"- {line['mode']}, batch {line['batch']}: {line['refused']}" for line in lines if "refused" in line]
    return _table(head, map(_step, lines)) + _listed(refused)


def _step(line: Line) -> list[str]:
    if "refused" in line:
        return [line["mode"], "-", "-", str(line["batch"]), *["-"] * 6]
    return [
        line["mode"],
        line["precision"],
        str(line["zero_stage"]),
        str(line["batch"]),
        f"{line['side']}^3",
        f"{line['ms']:.1f}",
        f"{line['crops_per_s']:.0f}",
        f"{line['peak_gib']:.2f}",
        f"{line['kernels']:.0f}",
        f"{line['busy']:.0%}",
    ]


def _ratios(lines: Sequence[Line]) -> list[str]:
    head = ["shared part", "K", "batch", "crops", "precision", "plain", *WAYS]
    refused = [f"- {_case(line)}, {way}: {why}" for line in lines for way, why in line["refused"].items()]
    return _table(head, map(_ratio, lines)) + _listed(refused)


def _ratio(line: Line) -> list[str]:
    plain = f"{line['plain_ms']:.2f} ms" if "plain_ms" in line else "-"
    found = line.get("ratios", {})
    of_ways = [f"{found[way]:.2f}" if way in found else "-" for way in WAYS]
    return [line["trunk"], str(line["tasks"]), str(line["batch"]), f"{line['side']}^3", line["precision"], plain, *of_ways]


def _case(line: Line) -> str:
    return f"{line['trunk']}, K = {line['tasks']}, batch {line['batch']}, {line['precision']}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _listed(items: Sequence[str]) -> list[str]:
    return ["", "Refused:", "", *items] if items else []

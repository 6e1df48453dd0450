"""The page and the picture of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from model import Model, crowding, fitted
from ways import OURS, PEERS

WAYS = ("plain", *OURS, *PEERS)
CURVE = [1 << i for i in range(11)]
YTICKS = [1, 2, 3, 5, 10, 20, 40]
EVERY = 4


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """balance.md and balance.png in a folder."""
    runs = document["ranks"]
    model = fitted(runs)
    lines = [
        "# What balancing costs",
        "",
        f"Written by `python benchmarks/balance` on {document['machine']}, torch {document['torch']}.",
        "",
        "## One rank",
        "",
        f"Each way's seconds by a plain step's of the same round, the median of interleaved rounds in one process; "
        f"seed {document['seed']}. `every {EVERY}` is computed from `exact` and `between`. Arithmetic alone is (1 + 2 K) / 3 "
        "times for K backward passes where a backward costs two forwards.",
        "",
        *_costs(document["costs"]),
        "",
        "## Several ranks",
        "",
        _setting(runs[-1]),
        "",
        *_ranks(runs, model),
        "",
        "## To 1,024 ranks",
        "",
        "![costs](balance.png)",
        "",
        *_modelled(runs, model),
        "",
    ]
    (folder / "balance.md").write_text("\n".join(lines))
    _draw(folder / "balance.png", document["costs"], runs, model)


def every(line: Mapping[str, Any]) -> float:
    """What a step costs on average with weights found every few steps."""
    return float((line["exact"] + (EVERY - 1) * line["between"]) / EVERY)


def _costs(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [*WAYS[1:3], "every", *WAYS[3:]]
    head = ["shared part", "K", "plain", *(f"every {EVERY}" if name == "every" else name for name in names)]
    found = [_row(head), _row(["---"] * len(head))]
    for line in lines:
        ratios = [f"{every(line) if name == 'every' else line[name]:.2f}" for name in names]
        found.append(_row([line["trunk"], str(line["tasks"]), f"{line['plain_ms']:.0f} ms", *ratios]))
    return found


def _setting(run: Mapping[str, Any]) -> str:
    return (
        f"`{run['trunk']}` ({run['shared_bytes'] / 4e6:.1f} million shared parameters), K = {run['tasks']}, {run['rows']} crops "
        f"of {run['side']}^3 a rank, a thread a rank, {run['cores']} cores. Every rank is in a network namespace of its own, "
        f"which sends at most {run['megabits']} Mbit/s. Bytes: what a rank's interface counted over all of a step, and by those "
        "of DistributedDataParallel. Peak: live tensor bytes in a step above a plain step's, in gradients of the shared part. "
        "Modelled seconds are those of the model below, with computing slowed by the ranks that share a core."
    )


def _ranks(runs: Sequence[Mapping[str, Any]], model: Model) -> list[str]:
    head = ["ranks", "way", "bytes a step", "by plain", "peak above plain", "seconds, measured", "modelled", "by plain, measured"]
    found = [_row(head), _row(["---"] * len(head))]
    for run in runs:
        plain = run["steps"]["plain"]
        for way, step in run["steps"].items():
            above = (step["peak_bytes"] - plain["peak_bytes"]) / run["shared_bytes"]
            sent = f"{step['bytes'] / plain['bytes']:.3f}" if plain["bytes"] > run["shared_bytes"] / 2 else "-"
            modelled = model.seconds(way, run["ranks"], crowding(run))
            seconds = [f"{step['seconds']:.3f}", f"{modelled:.3f}", f"{step['ratio']:.2f}"]
            found.append(_row([str(run["ranks"]), way, f"{step['bytes']:,.0f}", sent, f"{above:.2f}", *seconds]))
    return found


def _modelled(runs: Sequence[Mapping[str, Any]], ring: Model) -> list[str]:
    network, trees = ring.network, with_trees(ring)
    points = ", ".join(str(run["ranks"]) for run in runs)
    ways = ("exact", "sketch", "representation", "between")
    head = ["ranks", *(f"{way}, {kind}" for kind in ("ring", "trees") for way in ways)]
    return [
        f"**Measured: the points at {points} ranks. Everything else is modelled**, for ranks with a core of their own: computing "
        "as on one rank, collectives round gloo's ring with the constants that fit the timed ones: "
        f"{1e3 * network.latency_reduce:.2f} ms a message of an all-reduce, {1e3 * network.latency_exchange:.2f} ms of an "
        f"all-to-all, {8e-6 * network.bandwidth:.0f} Mbit/s, {1e9 * ring.copying:.1f} ns a byte copied "
        "(`benchmarks/balance/model.py`). `trees`: as many messages as NCCL's trees take, at the same latency, and not "
        "measured at all. A step by a plain one over as many ranks:",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(
            _row([str(ranks), *(f"{_by_plain(model, way, ranks):.2f}" for model in (ring, trees) for way in ways)])
            for ranks in CURVE
        ),
    ]


def with_trees(model: Model) -> Model:
    """The same with trees."""
    return replace(model, network=replace(model.network, trees=True))


def _by_plain(model: Model, way: str, ranks: int) -> float:
    return model.seconds(way, ranks) / model.seconds("plain", ranks)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _draw(path: Path, costs: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], model: Model) -> None:
    trunks = list(dict.fromkeys(line["trunk"] for line in costs))
    figure, panels = plt.subplots(1, len(trunks) + 1, figsize=(4.2 * (len(trunks) + 1), 4), layout="constrained")
    colours = {way: f"C{i}" for i, way in enumerate(WAYS[1:])}
    for panel, trunk in zip(panels, trunks, strict=False):
        lines = [line for line in costs if line["trunk"] == trunk]
        for way, colour in colours.items():
            tasks = [line["tasks"] for line in lines]
            panel.plot(tasks, [line[way] for line in lines], "o-", color=colour, label=way)
        panel.set(
            title=f"{trunk}, one rank", xlabel="tasks K", ylabel="step by a plain step", xticks=[2, 3, 5, 8], ylim=(0, None)
        )
    panels[0].legend(fontsize=8)
    for way in OURS:
        for of_kind, line in ((model, "--"), (with_trees(model), ":")):
            panels[-1].plot(CURVE, [_by_plain(of_kind, way, ranks) for ranks in CURVE], line, color=colours[way])
        measured = [run["steps"][way]["ratio"] for run in runs]
        panels[-1].plot([run["ranks"] for run in runs], measured, "o", color=colours[way], label=way)
    panels[-1].set(
        title=f"{runs[0]['trunk']}, K = {runs[0]['tasks']}",
        xlabel="ranks; points measured, modelled: -- ring, ··· trees",
        xscale="log",
    )
    panels[-1].set(xticks=CURVE, xticklabels=CURVE, yscale="log", yticks=YTICKS, yticklabels=YTICKS)
    panels[-1].minorticks_off()
    panels[-1].tick_params(axis="x", labelsize=7)
    panels[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)

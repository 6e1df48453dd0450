"""Population-based search that keeps what was learned, against one that begins changed members anew, ASHA and random search.

    python benchmarks/tune.py            under an hour on two cores; run it again to go on after an interruption

Every search is `mtids-dist tune configs/tune-lidc.yaml` with the overrides below, at the same budget of steps, on the LIDC
readings with fold 3 held out (one of the two for tuning). Seeds draw the first members, weights, order and copies; all
lines of a seed begin with the same members. The settings were looked at with seeds 0 and 100. Writes
benchmarks/results/tune.json and tune.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from mtids_dist.tune import History

ROOT = Path(__file__).parents[1]
HOME = ROOT / "runs" / "tune-lidc"
STORE = ROOT / "runs" / "lidc-readings" / "store"
RESULTS = ROOT / "benchmarks" / "results"
PRESERVED, REINITIALISED = "PBT, function preserved", "PBT, reinitialised"
LINES: dict[str, list[str]] = {
    PRESERVED: ["tune.resize=preserve"],
    REINITIALISED: ["tune.resize=reinitialise"],
    "ASHA": ["tune.scheduler=asha"],
    "random search": ["tune.scheduler=random"],
}
SEEDS = [1, 2, 3]
OF_COPY = ("generation", "loss_before", "loss_after", "score", "change", "counts")


def search(line: str, seed: int) -> dict[str, Any]:
    """One search, or what is known of it if it has finished."""
    folder = HOME / line.replace(", ", "-").replace(" ", "-").lower() / f"seed-{seed}"
    overrides = [f"run={folder}", f"data.store={STORE}", f"seed={seed}", *LINES[line]]
    words = [word for override in overrides for word in ("--set", override)]
    subprocess.run([sys.executable, "-m", "mtids_dist", "tune", "configs/tune-lidc.yaml", *words], cwd=ROOT, check=True)
    return summary(History.open(folder / "history.jsonl"))


def summary(history: History) -> dict[str, Any]:
    """A search's best validation loss after so many steps of all members together, and what its copies did."""
    spent, best, curve = 0, float("inf"), []
    by_generation: dict[int, list[float]] = {}
    for result in history.results:
        start = result["start"]
        spent += result["step"] - (history.result(start["id"])["step"] if start else 0)
        score = float("inf") if result["score"] is None else result["score"]
        by_generation.setdefault(result["generation"], []).append(score)
        best = min(best, score)
        curve.append([spent, best])
    copies = [r for r in history.results if r["error"] is None and r["loss_before"] is not None]
    winner = history.best
    assert winner is not None
    return {
        "best_loss": winner["score"],
        "steps": spent,
        "curve": curve,
        "median_by_generation": [median(by_generation[generation]) for generation in sorted(by_generation)],
        "winner": {key: winner[key] for key in ("generation", "member", "settings", "counts")},
        "copies": [{key: copy[key] for key in OF_COPY} for copy in copies],
    }


def share_of_steps(found: dict[str, Any], other: dict[str, Any]) -> float:
    """After which share of the steps that `other` took to its best loss this search was as good; infinite if never."""
    took = next(spent for spent, best in other["curve"] if best <= other["best_loss"])
    return next((spent for spent, best in found["curve"] if best <= other["best_loss"]), float("inf")) / took


def share_of_generations(found: dict[str, Any], other: dict[str, Any]) -> float:
    """As `share_of_steps`, of the population's median loss instead of the best: noise of one validation counts less."""
    best = min(other["median_by_generation"])
    took = other["median_by_generation"].index(best) + 1
    return next((g for g, loss in enumerate(found["median_by_generation"], 1) if loss <= best), float("inf")) / took


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Best loss over steps, a panel a seed."""
    figure, panels = plt.subplots(1, len(SEEDS), figsize=(12, 3.6), sharey=True, layout="constrained")
    for panel, seed in zip(panels, SEEDS, strict=True):
        for line in LINES:
            steps, losses = zip(*found[line][str(seed)]["curve"], strict=True)
            panel.step(steps, losses, where="post", label=line)
        panel.set_title(f"seed {seed}")
        panel.set_xlabel("steps of all members")
    panels[0].set_ylabel("best validation loss so far")
    panels[-1].legend()
    figure.savefig(RESULTS / "tune.png", dpi=110)


def main() -> None:
    """Run every search and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    seeds = parser.parse_args().seeds
    if not (STORE / "manifest.json").exists():
        subprocess.run([sys.executable, "-m", "mtids_dist", "dataset", "lidc-readings", str(STORE)], cwd=ROOT, check=True)
    found: dict[str, dict[str, Any]] = {line: {} for line in LINES}
    for seed in seeds:  # lines in turn, so that a slow hour of the machine meets all of them
        for line in LINES:
            found[line][str(seed)] = search(line, seed)
    for line, by_seed in found.items():
        losses = [by_seed[str(seed)]["best_loss"] for seed in seeds]
        print(f"{line:26} best loss {median(losses):.4f}   by seed {', '.join(f'{loss:.4f}' for loss in losses)}")
    shares = {line: [share_of_steps(found[line][str(s)], found[REINITIALISED][str(s)]) for s in seeds] for line in LINES}
    for line, of_seeds in shares.items():
        by_seed = ", ".join(f"{share:.2f}" for share in of_seeds)
        print(f"{line:26} as good as {REINITIALISED} after {median(of_seeds):.2f} of its steps   by seed {by_seed}")
    populations = [share_of_generations(found[PRESERVED][str(s)], found[REINITIALISED][str(s)]) for s in seeds]
    by_seed = ", ".join(f"{share:.2f}" for share in populations)
    print(f"{PRESERVED}: the median member is as good after {median(populations):.2f} of its generations   by seed {by_seed}")
    if seeds == SEEDS:
        document = {"share_of_steps": shares, "share_of_generations_of_the_median_member": populations, "searches": found}
        (RESULTS / "tune.json").write_text(json.dumps(document, indent=1).replace("Infinity", "null") + "\n")
        draw(found)


if __name__ == "__main__":
    main()

"""Population-based search that keeps what was learned, against one that begins changed members anew, ASHA and random search.

    python benchmarks/tune.py                       the LIDC readings: twelve searches, 37 minutes on two busy cores
    python benchmarks/tune.py --problem phantom     synthetic CTs, where learning takes longer: six, 11 minutes

Run it again to go on after an interruption. Every search is `mtids-dist tune` with the problem's description and the
overrides below, at the same budget of steps; validation is on a fold for tuning (of the readings fold 3, of the synthetic
patients fold 0). Seeds draw the first members, weights, order and copies; all lines of a seed begin with the same members.
The readings' settings were looked at with seeds 0 and 100; the phantom's are those of the demo. Writes
benchmarks/results/tune_<problem>.json and .png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from mtids_dist.tune import History

ROOT = Path(__file__).parents[1]
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


@dataclass(frozen=True)
class Problem:
    """What is searched: a description in configs/, the verbs that make its store, and the lines that are run."""

    name: str
    description: str
    store: Path
    make_store: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]

    @property
    def home(self) -> Path:
        """Where its searches lie."""
        return ROOT / "runs" / f"tune-{self.name}"


def lidc() -> Problem:
    """The radiologists' readings."""
    store = ROOT / "runs" / "lidc-readings" / "store"
    return Problem("lidc", "configs/tune-lidc.yaml", store, (("dataset", "lidc-readings", str(store)),), tuple(LINES))


def phantom() -> Problem:
    """The demo's synthetic cohort."""
    home, config = ROOT / "runs" / "tune-phantom", ("--config", "configs/tune-demo.yaml")
    cohort = ("phantom", str(home / "cohort"), *config)
    crops = ("prepare", str(home / "cohort" / "dicom"), str(home / "cohort" / "nodes.csv"), str(home / "store"), *config)
    return Problem("phantom", "configs/tune-demo.yaml", home / "store", (cohort, crops), (PRESERVED, REINITIALISED))


PROBLEMS = {problem.name: problem for problem in (lidc(), phantom())}


def verb(*words: str) -> None:
    """One verb of the product, in the project's folder."""
    subprocess.run([sys.executable, "-m", "mtids_dist", *words], cwd=ROOT, check=True)


def search(problem: Problem, line: str, seed: int) -> dict[str, Any]:
    """One search, or what is known of it if it has finished."""
    folder = problem.home / line.replace(", ", "-").replace(" ", "-").lower() / f"seed-{seed}"
    overrides = [f"run={folder}", f"data.store={problem.store}", f"seed={seed}", *LINES[line]]
    verb("tune", problem.description, *(word for override in overrides for word in ("--set", override)))
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


def draw(problem: Problem, found: dict[str, dict[str, Any]]) -> None:
    """Best loss over steps, and the median member's by generation, a column a seed."""
    figure, panels = plt.subplots(2, len(SEEDS), figsize=(12, 6.4), sharey="row", layout="constrained")
    for column, seed in zip(panels.T, SEEDS, strict=True):
        for line in problem.lines:
            steps, losses = zip(*found[line][str(seed)]["curve"], strict=True)
            column[0].step(steps, losses, where="post", label=line)
        for line in (PRESERVED, REINITIALISED):
            medians = found[line][str(seed)]["median_by_generation"]
            column[1].plot(range(1, len(medians) + 1), medians, marker="o")
        column[0].set(title=f"seed {seed}", xlabel="steps of all members")
        column[1].set(xlabel="generation")
    panels[0, 0].set_ylabel("best validation loss so far")
    panels[1, 0].set_ylabel("loss of the median member")
    panels[0, -1].legend()
    figure.savefig(RESULTS / f"tune_{problem.name}.png", dpi=110)


def compare(problem: Problem, found: dict[str, dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """Prints the table; what the committed results hold."""

    def told(numbers: list[float], digits: int) -> str:
        return f"{median(numbers):.{digits}f}   by seed {', '.join(f'{number:.{digits}f}' for number in numbers)}"

    shares = {line: [share_of_steps(found[line][str(s)], found[REINITIALISED][str(s)]) for s in seeds] for line in problem.lines}
    populations = [share_of_generations(found[PRESERVED][str(s)], found[REINITIALISED][str(s)]) for s in seeds]
    for line in problem.lines:
        print(f"{line:26} best loss {told([found[line][str(seed)]['best_loss'] for seed in seeds], 4)}")
    for line, of_seeds in shares.items():
        print(f"{line:26} as good as {REINITIALISED} after so much of its steps: {told(of_seeds, 2)}")
    print(f"{PRESERVED}: its median member after so much of the generations: {told(populations, 2)}")
    return {"share_of_steps": shares, "share_of_generations_of_the_median_member": populations, "searches": found}


def main() -> None:
    """Run every search and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="lidc")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given = parser.parse_args()
    problem, seeds = PROBLEMS[given.problem], given.seeds
    if not (problem.store / "manifest.json").exists():
        for words in problem.make_store:
            verb(*words)
    found: dict[str, dict[str, Any]] = {line: {} for line in problem.lines}
    for seed in seeds:  # lines in turn, so that a slow hour of the machine meets all of them
        for line in problem.lines:
            found[line][str(seed)] = search(problem, line, seed)
    document = compare(problem, found, seeds)
    if seeds == SEEDS:
        path = RESULTS / f"tune_{problem.name}.json"
        path.write_text(json.dumps(document, indent=1).replace("Infinity", "null") + "\n")
        draw(problem, found)


if __name__ == "__main__":
    main()

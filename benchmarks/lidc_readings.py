"""DBR with DD-GB against hard sharing with equal weights and against size alone, on the LIDC readings, over three preset splits.

    python benchmarks/lidc_readings.py            about ten minutes on two cores; run it again to go on after an interruption

Every run is `mtids-dist train configs/lidc-readings.yaml` on two workers, told apart by the overrides below; the last epoch's
network is evaluated on the held-out fold, which nothing was chosen on. Writes runs/lidc-readings/evaluation.json and
benchmarks/results/lidc_readings.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mtids_dist.evaluate import compare

ROOT = Path(__file__).parents[1]
HOME = ROOT / "runs" / "lidc-readings"
MTIDS = [sys.executable, "-m", "mtids_dist"]
LINES: dict[str, list[str]] = {
    "DBR with DD-GB": [],
    "hard sharing, equal weights": ["model.routing=hard", "balance={method: equal}"],
}


def verb(*words: str) -> None:
    """One verb of the product, in the project's folder."""
    subprocess.run([*MTIDS, *words], cwd=ROOT, check=True)


def run_one(line: str, fold: int) -> dict[str, Any]:
    """Train and evaluate one line on one split; what is finished is taken as it is."""
    folder = HOME / line.replace(", ", "-").replace(" ", "-").lower() / f"fold-{fold}"
    overrides = [f"run={folder}", f"data.store={HOME / 'store'}", f"data.fold={fold}", *LINES[line]]
    verb("train", "configs/lidc-readings.yaml", *(word for override in overrides for word in ("--set", override)))
    if not (folder / "evaluation.json").exists():
        verb("evaluate", str(folder), str(HOME / "store"), "--split", "validation")
    document: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return document


def main() -> None:
    """Run every line on every split and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2], help="held-out folds (3 and 4 are for tuning)")
    folds = parser.parse_args().folds
    if not (HOME / "store" / "manifest.json").exists():
        verb("dataset", "lidc-readings", str(HOME / "store"))
    documents: dict[str, list[dict[str, Any]]] = {line: [] for line in LINES}
    for fold in folds:  # lines in turn, so that a slow hour of the machine meets both
        for line in LINES:
            documents[line].append(run_one(line, fold))
    found = compare(documents)
    for line, values in found["lines"].items():
        splits = ", ".join(f"{auc:.4f}" for auc in values["by_split"])
        print(f"{line:30} mean AUC {values['mean_auc']:.4f}   by split {splits}")
    if folds == [0, 1, 2]:
        text = json.dumps(found, indent=1) + "\n"
        (HOME / "evaluation.json").write_text(text)
        (ROOT / "benchmarks" / "results" / "lidc_readings.json").write_text(text)


if __name__ == "__main__":
    main()

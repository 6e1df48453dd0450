"""What a training step costs on this machine's GPU, and what balancing costs there beside TorchJD and K backward passes.

    python benchmarks/gpu                               everything; about four minutes on one H200
    python benchmarks/gpu --part step --rounds 20       one part only, printed
    python benchmarks/gpu --out FOLDER                  written there instead
    python benchmarks/gpu --device cpu --side 16 --batch 2 --rounds 2      only tries the code, where there is no GPU

The whole is written to benchmarks/results/gpu.json and gpu.md; one part, or anything from a CPU, only where --out says.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "balance"), str(HERE.parents[1])]  # its networks and ways; mtids_dist, where it isn't installed
RESULTS = HERE.parent / "results"
PARTS = ("step", "balance")
SEED = 0


def main() -> None:
    """Measure, print, and write where a whole document was measured."""
    o = options()
    hide_gpus(o.device)
    import torch

    if o.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu: no GPU here; --device cpu only tries the code", file=sys.stderr)
        raise SystemExit(2)
    from results import page

    document = measured(o)
    print(page(document))
    if (folder := folder_of(o)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.json").write_text(json.dumps(document, indent=1) + "\n")
        (folder / "gpu.md").write_text(page(document))


def hide_gpus(device: str) -> None:
    """Keep torch and DeepSpeed to the CPU where that was asked for; they look when they are imported."""
    if device == "cpu":
        os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")


def measured(o: argparse.Namespace) -> dict[str, Any]:
    """Return the document: where it was measured, by which command, and the tables of the parts asked for."""
    import peers
    import step
    from device import Device

    device = Device(o.device)
    command = shlex.join(["python", *sys.orig_argv[1:]])
    document: dict[str, Any] = {"command": command, "seed": SEED, "rounds": o.rounds, **device.described()}
    if o.part in ("all", "balance"):  # first, since a process group that is up changes what a plain step is
        document["balance"] = peers.table(device, o.rounds, SEED, told, rows=o.batch, side=o.side)
    if o.part in ("all", "step"):
        document["step"] = step.table(device, o.rounds, SEED, told, rows=o.batch, side=o.side)
    return document


def folder_of(o: argparse.Namespace) -> Path | None:
    """Return where the document is written, if anywhere: results hold whole documents from a GPU only."""
    whole = o.device == "cuda" and o.part == "all"
    return o.out or (RESULTS if whole else None)


def told(line: dict[str, Any]) -> None:
    """Say on stderr what has just been measured."""
    print(json.dumps(line), file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    """Return those of the command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all", help="what is measured")
    parser.add_argument("--rounds", type=int, default=10, help="steps that are timed, after those that warm up")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the code")
    parser.add_argument("--side", type=int, help="voxels along a crop's edge, instead of each table's own")
    parser.add_argument("--batch", type=int, help="crops in a batch, instead of each table's own")
    parser.add_argument("--out", type=Path, help="folder to write to")
    o = parser.parse_args()
    if o.rounds < 1:
        parser.error(f"--rounds must be at least 1, found {o.rounds}")
    if o.device == "cpu" and o.out is not None and o.out.resolve() == RESULTS:
        parser.error("--out must be another folder: benchmarks/results holds no figure of a CPU's")
    return o


if __name__ == "__main__":
    main()

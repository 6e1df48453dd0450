"""What each method does to the effective learning rate: the length of the update of K identical unit gradients with loss 1.

    python benchmarks/balance/learning_rate.py

Prints a table, and writes nothing.
"""

from __future__ import annotations

import warnings

import torch

from mtids_dist.balance import SCALARIZATIONS, WEIGHTINGS, SeesLosses, make_scalarization, make_weighting

SIZES = (2, 3, 5)
SEED = 0


def of_gradients(name: str, tasks: int) -> float:
    """The sum of the weights is the length where all gradients are the same one of length 1."""
    torch.manual_seed(SEED)
    weighting = make_weighting(name, **({"weights": [1 / tasks] * tasks} if name == "constant" else {}))
    if isinstance(weighting, SeesLosses):
        weighting.observe(torch.ones(tasks))
    return float(weighting(torch.ones(tasks, tasks, dtype=torch.float64)).sum())


def of_losses(name: str, tasks: int) -> float:
    """The sum of the derivatives by the losses."""
    torch.manual_seed(SEED)
    losses = torch.ones(tasks, requires_grad=True)
    return float(torch.autograd.grad(make_scalarization(name, tasks)(losses), losses)[0].sum())


def cell(name: str, kind: str, tasks: int) -> str:
    """`-` where a method needs more tasks."""
    try:
        return f"{(of_gradients if kind == 'gradients' else of_losses)(name, tasks):.2f}"
    except ValueError:
        return "-"


def row(name: str, kind: str) -> str:
    """A line of the table."""
    return f"| `{name}` | {kind} | {' | '.join(cell(name, kind, tasks) for tasks in SIZES)} |"


def main() -> None:
    """Prints the table."""
    warnings.simplefilter("ignore")
    print(f"| method | weights | {' | '.join(f'K = {tasks}' for tasks in SIZES)} |")
    print(f"|---|---|{'---|' * len(SIZES)}")
    for name in sorted(WEIGHTINGS):
        print(row(name, "gradients"))
    for name in sorted(SCALARIZATIONS):
        print(row(name, "losses"))


if __name__ == "__main__":
    main()

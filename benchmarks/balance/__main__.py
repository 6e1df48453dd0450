"""What balancing costs beside a plain step, TorchJD and LibMTL's way, interleaved in one process.

    python benchmarks/balance [--tasks 2 3 5 8] [--rounds 40] [--threads N]

Prints a line a network and number of tasks: the plain step in milliseconds, and each way's median ratio to it.
"""

from __future__ import annotations

import argparse
import warnings

import torch
from costs import table


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 5, 8], help="numbers of tasks")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's threads")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds")
    table(options.tasks, options.rounds, print)


if __name__ == "__main__":
    main()

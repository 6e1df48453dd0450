"""`python -m mtids_dist`: the command line."""

from mtids_dist.cli import main

main()

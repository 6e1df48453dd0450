"""What a person sees while work goes on: bars and tables on a terminal, plain lines otherwise."""

from mtids_dist.console.evaluation import evaluation_table
from mtids_dist.console.jobs import job_table
from mtids_dist.console.rehearsal import rehearsal_table
from mtids_dist.console.search import SearchDisplay
from mtids_dist.console.terminal import ask, console, errors, notice, progress_bar, say
from mtids_dist.console.training import TrainingDisplay

__all__ = [
    "SearchDisplay",
    "TrainingDisplay",
    "ask",
    "console",
    "errors",
    "evaluation_table",
    "job_table",
    "notice",
    "progress_bar",
    "rehearsal_table",
    "say",
]

"""The series that our work exports: one table, which gauges, trackers, dashboards, rules, docs and tests read."""

from __future__ import annotations

from dataclasses import dataclass

RUN = "run"
"""The label that every series has: the own name of the run's, search's or store's folder."""
RAY_PREFIX = "ray_"
"""What Ray puts before the name of a metric of `ray.util.metrics`."""


@dataclass(frozen=True)
class Series:
    """A gauge.

    :param name: as it is given to Ray.
    :param verb: whose work exports it.
    :param meaning: one sentence with the unit.
    :param labels: beside `run`; each has few values, none of them about a patient.
    """

    name: str
    verb: str
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return RAY_PREFIX + self.name

    @property
    def short(self) -> str:
        """The name in a tracker, where all series are ours."""
        return self.name.removeprefix("mtids_")


LOSS = Series("mtids_loss", "train", "Mean loss of the last step's global batch, before weighting.", ("task",))
VALIDATION_LOSS = Series("mtids_validation_loss", "train", "Mean cross-entropy over the held-out fold.", ("task",))
TASK_WEIGHT = Series("mtids_task_weight", "train", "Weight of the task's gradient in the last step.", ("task",))
GRADIENT_COSINE = Series(
    "mtids_gradient_cosine", "train", "Cosine between two tasks' gradients on the shared parameters, -1 to 1.", ("pair",)
)
BRANCH_USE = Series(
    "mtids_branch_use", "train", "Mean gate weight of a branch over the held-out fold; a task's add up to 1.", ("task", "branch")
)
EXPERT_USE = Series(
    "mtids_expert_use",
    "train",
    "Mean gate weight of an expert (branch times expert) over the held-out fold; a task's add up to 1.",
    ("task", "branch", "expert"),
)
SAMPLES_PER_SECOND = Series("mtids_samples_per_second", "train", "Crops that all workers together train on in a second.")
DATA_WAIT_RATIO = Series("mtids_data_wait_ratio", "train", "Share of the time that rank 0 waits for data, 0 to 1.")
LEARNING_RATE = Series("mtids_learning_rate", "train", "Learning rate of the last step.")
STEP = Series("mtids_step", "train", "Steps taken.")
EPOCH = Series("mtids_epoch", "train", "Epochs finished.")

NODE_ROWS = Series("mtids_node_rows", "prepare", "Rows of the node table; prepared and rejected add up to them in the end.")
CROPS_PREPARED = Series("mtids_crops_prepared", "prepare", "Crops cut and written, those of an interrupted call included.")
CROPS_REJECTED = Series("mtids_crops_rejected", "prepare", "Nodes without a crop; rejected.parquet in the store says why.")

SEARCH_GENERATION = Series("mtids_search_generation", "tune", "The furthest generation that a member has trained.")
SEARCH_RESULTS = Series("mtids_search_results", "tune", "Generations trained, over all members.")
SEARCH_BEST_SCORE = Series("mtids_search_best_score", "tune", "Lowest validation loss so far, as the search compares it.")
SEARCH_MEMBERS_FAILED = Series("mtids_search_members_failed", "tune", "Generations that failed and members that were dropped.")
SEARCH_GENERATION_SECONDS = Series(
    "mtids_search_generation_seconds", "tune", "Longest time that a member took for a generation so far."
)
SEARCH_LAST_RESULT = Series(
    "mtids_search_last_result_timestamp_seconds", "tune", "Unix time of the last result, or of the search's start."
)

SERIES = (
    LOSS,
    VALIDATION_LOSS,
    TASK_WEIGHT,
    GRADIENT_COSINE,
    BRANCH_USE,
    EXPERT_USE,
    SAMPLES_PER_SECOND,
    DATA_WAIT_RATIO,
    LEARNING_RATE,
    STEP,
    EPOCH,
    NODE_ROWS,
    CROPS_PREPARED,
    CROPS_REJECTED,
    SEARCH_GENERATION,
    SEARCH_RESULTS,
    SEARCH_BEST_SCORE,
    SEARCH_MEMBERS_FAILED,
    SEARCH_GENERATION_SECONDS,
    SEARCH_LAST_RESULT,
)


def series_table() -> str:
    """The table as Markdown."""
    rows = [f"| `{s.exported}` | {s.verb} | {', '.join((RUN, *s.labels))} | {s.meaning} |" for s in SERIES]
    return "\n".join(["| series | verb | labels | what it is |", "|---|---|---|---|", *rows])

"""lineage.json: who copied whom, with which counts, and what the copy's loss was before and after its resize."""

from __future__ import annotations

import json
from typing import Any

from mtids_dist.tune.history import History


def lineage_of(history: History) -> list[dict[str, Any]]:
    """One event a copy, in order; those whose first generation is not trained yet have no `loss_after`.

    `generation` is the donor's: so many it had been trained for. `loss_before` is the donor's last validation loss (the mean
    over tasks, each divided by log of its classes), `loss_after` the copy's before it was trained.
    """
    copies = [line for line in history.results if line["start"] and line["start"]["member"] != line["member"]]
    return [_event(line, history.result(line["start"]["id"])) for line in copies if line["error"] is None]


def write_lineage(history: History) -> None:
    """Writes lineage.json beside the history."""
    path = history.path.with_name("lineage.json")
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(lineage_of(history), indent=1) + "\n")
    draft.replace(path)


def _event(copy: dict[str, Any], donor: dict[str, Any]) -> dict[str, Any]:
    return {
        "generation": donor["generation"],
        "member": copy["member"],
        "donor": donor["member"],
        "counts_before": donor["counts"],
        "counts_after": copy["counts"],
        "loss_before": copy["loss_before"],
        "loss_after": copy["loss_after"],
        "change": copy["change"],
        "refused": copy["refused"],
        "settings_before": donor["settings"],
        "settings_after": copy["settings"],
    }

"""The page of a run folder."""

from __future__ import annotations

from pathlib import Path

from mtids_dist.report.curves import cosine_picture, loss_pictures, metric_pictures, speed_pictures, weight_picture
from mtids_dist.report.folder import RunFolder
from mtids_dist.report.html import Section, render, told_events
from mtids_dist.report.ink import PALETTE
from mtids_dist.report.montage import montage
from mtids_dist.report.outcomes import confusion_pictures, gate_picture, roc_pictures
from mtids_dist.report.table import headline


def run_page(run: RunFolder, store: Path | None = None) -> str:
    """The page of a run as HTML; `store`: where the store lies now, if no longer where evaluation.json says."""
    return render(
        "run.html.j2",
        kind="run",
        folder=run,
        run=run,
        rows=headline(run),
        sections=_sections(run),
        montage=montage(run, store),
        colours={task: i % len(PALETTE) for i, task in enumerate(run.tasks)},
        events=told_events(run.events),
    )


def _sections(run: RunFolder) -> list[Section]:
    gates, weights, cosines = gate_picture(run), weight_picture(run), cosine_picture(run)
    return [
        Section("Predictions", [*confusion_pictures(run), *roc_pictures(run)], "Not evaluated yet."),
        Section(
            "Experts and gradient balance", [p for p in (gates, weights, cosines) if p], "Nothing logged, not evaluated yet."
        ),
        Section("Loss and validation metrics", [*loss_pictures(run), *metric_pictures(run)], "No training step has been logged."),
        Section("Speed", speed_pictures(run), "No training step has been logged."),
    ]

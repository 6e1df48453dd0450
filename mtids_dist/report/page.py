"""One self-contained page of a run folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mtids_dist import __version__
from mtids_dist.report.curves import cosine_picture, loss_pictures, metric_pictures, speed_pictures, weight_picture
from mtids_dist.report.folder import RunFolder, read_run
from mtids_dist.report.ink import PALETTE, Picture
from mtids_dist.report.montage import montage
from mtids_dist.report.outcomes import confusion_pictures, gate_picture, roc_pictures
from mtids_dist.report.table import headline

REPORT = "report.html"


@dataclass(frozen=True)
class Section:
    """Pictures under one heading; without any, `otherwise` is said in their place."""

    title: str
    pictures: list[Picture]
    otherwise: str


def write_report(run_dir: Path, store: Path | None = None) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path; the page needs no other file.

    `store`: where the store lies now, if no longer where evaluation.json says.
    InputError where there is no such folder, nothing of a run in it, or one of its files is broken.
    """
    run = read_run(Path(run_dir))
    path = run.path / REPORT
    draft = path.with_name(f".{REPORT}.{os.getpid()}.tmp")
    draft.write_text(render(run, store), encoding="utf-8")
    return draft.replace(path)


def render(run: RunFolder, store: Path | None = None) -> str:
    """The page of a run as HTML."""
    environment = Environment(
        loader=PackageLoader("mtids_dist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        run=run,
        rows=headline(run),
        sections=_sections(run),
        montage=montage(run, store),
        colours={task: i % len(PALETTE) for i, task in enumerate(run.tasks)},
        events=[(_clock(event.get("time_s")), event) for event in run.events],
        version=__version__,
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


def _clock(time_s: float | None) -> str:
    return "" if time_s is None else datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

"""The winner of a search as an ordinary run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

import yaml

from mtids_dist.train import MetricsLog, RunFolder, TrainJob, read_lines
from mtids_dist.tune.folder import SearchFolder
from mtids_dist.tune.history import History, Line


def export_winner(folder: SearchFolder, history: History, winner: Line, job: TrainJob, description: Mapping[str, Any]) -> None:
    """Writes `best/`: the settings that the winner ended with, its weights, its whole ancestry's metrics, and its state, from
    which `train` goes on if it is given more epochs.

    :param job: the search's job with the winner's settings.
    :param description: the search's resolved run description.
    """
    draft = RunFolder(folder.path / ".best.draft")
    shutil.rmtree(draft.path, ignore_errors=True)
    draft.path.mkdir()
    state = folder.path / winner["state"]
    shutil.copytree(state, draft.start)
    shutil.copy(state / "portable" / "weights.safetensors", draft.weights)
    shutil.copy(folder.versions, draft.versions)
    mine = {**description, **job.model_dump(mode="json"), "run": str(folder.best.path)}
    epochs = winner["generation"] * (job.train.epochs // description["tune"]["generations"])
    mine["train"] = {**mine["train"], "epochs": epochs}
    draft.description.write_text(yaml.safe_dump(mine, sort_keys=False))
    _write_metrics(folder, history, winner, draft)
    MetricsLog(draft.metrics).append("event", event="finished", step=winner["step"], epoch=epochs, time_s=winner["ended_s"])
    shutil.rmtree(folder.best.path, ignore_errors=True)
    draft.path.replace(folder.best.path)


def _write_metrics(folder: SearchFolder, history: History, winner: Line, draft: RunFolder) -> None:
    """One metrics.jsonl out of those of the winner's ancestry: steps go on from one generation to the next."""
    with draft.metrics.open("w", encoding="utf-8") as file:
        for result in history.ancestry(winner):
            for line in read_lines(RunFolder(folder.path / result["id"]).metrics):
                if line["kind"] != "event" or line["event"] in ("started", "resumed"):
                    file.write(json.dumps(line) + "\n")

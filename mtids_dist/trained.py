"""A trained network, found again from its run folder, one of its checkpoints, or its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from mtids_dist.config import RunConfig, parse_run, with_overrides
from mtids_dist.data import TEST_FOLD, Progress, Split, Store, no_progress, open_store
from mtids_dist.errors import InputError
from mtids_dist.evaluate import Evaluation
from mtids_dist.evaluate import evaluate as evaluate_model
from mtids_dist.model import MTIDS
from mtids_dist.train import RunFolder

WEIGHTS_OF_CHECKPOINT = Path("portable", "weights.safetensors")


@dataclass(frozen=True)
class Trained:
    """The network with its weights, the run that it comes from, and where the weights lie."""

    model: MTIDS
    config: RunConfig
    folder: RunFolder
    weights: Path


def open_trained(path: Path, overrides: list[str] | None = None) -> Trained:
    """The network at `path`: a run folder, a checkpoint in it, or a safetensors file in it.

    :raises InputError: no run folder around `path`, not trained yet, or weights that do not fit the run's model.
    """
    folder = next((RunFolder(p) for p in (path, *path.absolute().parents) if RunFolder(p).description.exists()), None)
    if not path.exists() or folder is None:
        raise InputError("no run folder here", where=str(path), allowed="a folder with run.yaml, or something in one")
    tree = with_overrides(yaml.safe_load(folder.description.read_text()), overrides or [])
    config = parse_run(tree, where=str(folder.description))
    weights = _weights_at(path, folder)
    model = config.model.build(config.num_classes)
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"these weights do not fit the run's model: {error}", where=str(weights)) from None
    return Trained(model.eval(), config, folder, weights)


def evaluate_checkpoint(
    path: Path, store: Path, *, split: str | None, out: Path | None, overrides: list[str], progress: Progress = no_progress
) -> Evaluation:
    """Evaluates the network at `path` on a split of `store`; the results go to `out`, or the run folder.

    :raises InputError: see `open_trained`; an unknown or empty split; a store with other crops or columns.
    """
    trained, opened = open_trained(path, overrides), open_store(store)
    _refuse_other_crops(trained, opened)
    evaluation = evaluate_model(
        trained.model,
        opened,
        trained.config.tasks,
        split=_split(split, opened),
        held_out=trained.config.data.fold,
        window=trained.config.data.window,
        checkpoint=trained.weights,
        progress=progress,
    )
    evaluation.write(out or trained.folder.path)
    return evaluation


def _weights_at(path: Path, folder: RunFolder) -> Path:
    candidates = [path] if path.is_file() else [path / WEIGHTS_OF_CHECKPOINT, folder.weights if path == folder.path else path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    best = path / "best"  # of a search
    allowed = str(best) if best.is_dir() else "a finished run folder or a checkpoint"
    raise InputError("no weights here: training has not finished, or this is a search", where=str(path), allowed=allowed)


def _split(name: str | None, store: Store) -> Split:
    if name is None:
        return Split.TEST if store.count([TEST_FOLD]) else Split.VALIDATION
    try:
        return Split(name)
    except ValueError:
        raise InputError("unknown split", where="--split", found=name, allowed=", ".join(s.value for s in Split)) from None


def _refuse_other_crops(trained: Trained, store: Store) -> None:
    """The crops must be what the network was trained on: the same voxels, of the same size."""
    source = trained.config.data.store
    if source is None or not source.exists() or source.absolute() == store.path.absolute():
        return
    before: Any = open_store(source)
    for field in ("crop_shape", "spacing_mm"):
        was, found = getattr(before, field), getattr(store, field)
        if was != found:
            raise InputError(f"the network was trained on another {field}", where=str(store.path), found=found, allowed=str(was))

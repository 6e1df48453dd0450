"""Running a network over the rows of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from mtids_dist.data import CROP, Progress, Store, crops_of, no_progress, normalise
from mtids_dist.evaluate.baseline import encode
from mtids_dist.evaluate.fuse import fuse
from mtids_dist.evaluate.gates import GateSums, MeanGates
from mtids_dist.tasks import Task

IDENTITY = ("node", "patient", "fold", "short_axis_mm")
"""The store's columns that go along with a prediction; all hashed, none an identifier."""


@dataclass(frozen=True)
class Predictions:
    """What the network says of N rows, in store order."""

    tasks: Mapping[str, Task]
    rows: pa.Table
    """every column of the store but the crops"""
    labels: Mapping[str, npt.NDArray[np.int64]]
    """[N] by task, -1 where unknown"""
    probabilities: Mapping[str, npt.NDArray[np.float64]]
    """[N, C] by task"""
    gates: Mapping[str, MeanGates] = field(default_factory=dict)
    """empty for a network without gates"""

    @property
    def fused(self) -> dict[str, npt.NDArray[np.float64]]:
        """[N, C] of each product task, fused with the tasks of its columns."""
        return fuse(self.tasks, self.probabilities)

    def table(self) -> pa.Table:
        """One row a node: who it is, and per task its label, probabilities and fused probabilities."""
        columns = {name: self.rows.column(name) for name in IDENTITY}
        for task, p_NC in self.probabilities.items():
            columns[f"{task}_label"] = pa.array(self.labels[task])
            columns[f"{task}_probabilities"] = probability_column(p_NC)
        columns |= {f"{task}_fused_probabilities": probability_column(p_NC) for task, p_NC in self.fused.items()}
        return pa.table(columns)


def probability_column(p_NC: npt.NDArray[np.float64]) -> pa.Array:
    """Probabilities [N, C] as list<float32>."""
    return pa.array(list(p_NC.astype(np.float32)), pa.list_(pa.float32()))


def predict_store(
    model: nn.Module,
    store: Store,
    tasks: Mapping[str, Task],
    folds: Sequence[int],
    *,
    window: tuple[float, float],
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> Predictions:
    """Run `model` (crops [B, 1, D, H, W] -> {task: logits [B, C]}) over all rows of `folds`; it is left in the mode and on the
    device that it came in.

    `window`: the values mapped to [-1, 1]. `device`: None is a GPU where there is one. A model with `.watched_gates()` also tells
    how its experts are used.
    """
    rows = store.labels(folds)
    labels = {name: encode(task, rows) for name, task in tasks.items()}
    logits: dict[str, list[Tensor]] = {name: [] for name in tasks}
    sums, done = GateSums(), 0
    was_training = model.training
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    device = device or ("cuda" if torch.cuda.is_available() and home.type == "cpu" else home)
    model.to(device).eval()
    watched = getattr(model, "watched_gates", nullcontext)()
    try:
        with torch.inference_mode(), watched as gates:
            for batch in store.batches(folds, batch_size=batch_size, columns=[CROP]):
                outputs = model(normalise(crops_of(batch), window).to(device))
                for name, chunks in logits.items():
                    chunks.append(outputs[name].double())
                sums.add(gates or {})
                done += len(batch)
                progress(done, len(rows), "predict")
    finally:
        model.to(home).train(was_training)
    return Predictions(tasks, rows, labels, {name: _softmax(logits[name], tasks[name]) for name in tasks}, sums.means())


def _softmax(chunks: list[Tensor], task: Task) -> npt.NDArray[np.float64]:
    if not chunks:
        return np.zeros((0, task.num_classes))
    probabilities: npt.NDArray[np.float64] = torch.cat(chunks).softmax(1).cpu().numpy()
    return probabilities

"""What is there of a run: the files of its folder, read as far as they have come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtids_dist.errors import InputError
from mtids_dist.report.files import parse, read_object, read_text

Line = Mapping[str, Any]

METRICS, EVALUATION, PREDICTIONS = "metrics.jsonl", "evaluation.json", "predictions.parquet"
DESCRIPTION, VERSIONS = "run.yaml", "versions.json"


@dataclass(frozen=True)
class RunFolder:
    """One run's files in memory. What is not there (yet) is empty or None, and named in `missing`."""

    path: Path
    steps: tuple[Line, ...]
    validations: tuple[Line, ...]
    events: tuple[Line, ...]
    evaluation: Mapping[str, Any] | None
    predictions: pa.Table | None
    description: str
    """run.yaml as text"""
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    """one sentence each"""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task met in the evaluation or the log, in order of first appearance."""
        names = dict.fromkeys(self.evaluation["tasks"] if self.evaluation else ())
        for line in (*self.steps, *self.validations):
            names |= dict.fromkeys(line.get("loss", {}))
        return tuple(names)


_MISSING = {
    DESCRIPTION: "run.yaml is not there: what was asked for can't be shown.",
    VERSIONS: "versions.json is not there: what it ran with can't be shown.",
    METRICS: "metrics.jsonl is not there: no curves of the training.",
    EVALUATION: "evaluation.json is not there: the run has not been evaluated yet.",
    PREDICTIONS: "predictions.parquet is not there: no ROC curves and no crops.",
}


def read_run(path: Path) -> RunFolder:
    """Read a run folder, finished or not; InputError where there is no folder, nothing of a run in it, or a file is broken."""
    if not path.is_dir():
        raise InputError("no such run folder", where=str(path))
    there = {name: (path / name).is_file() for name in _MISSING}
    if not any(there.values()):
        raise InputError("this folder holds nothing of a run", where=str(path), allowed=f"a folder with {', '.join(_MISSING)}")
    missing = [sentence for name, sentence in _MISSING.items() if not there[name]]
    lines, broken = _read_lines(path / METRICS) if there[METRICS] else ([], 0)
    if broken:
        missing.append(f"{broken} line(s) of {METRICS} are cut short or unreadable and were left out.")
    return RunFolder(
        path=path,
        steps=_of_kind(lines, "step"),
        validations=_of_kind(lines, "validation"),
        events=tuple(line for line in lines if line.get("kind") == "event"),
        evaluation=read_object(path / EVALUATION, ("tasks",)) if there[EVALUATION] else None,
        predictions=_read_table(path / PREDICTIONS) if there[PREDICTIONS] else None,
        description=read_text(path / DESCRIPTION) if there[DESCRIPTION] else "",
        versions=read_object(path / VERSIONS) if there[VERSIONS] else {},
        missing=tuple(missing),
    )


def _of_kind(lines: list[Line], kind: str) -> tuple[Line, ...]:
    """Lines of one kind in order of steps; where a resumed run logged a step twice, the later line."""
    by_step = {line["step"]: line for line in lines if line.get("kind") == kind and isinstance(line.get("step"), int)}
    return tuple(by_step[step] for step in sorted(by_step))


def _read_lines(path: Path) -> tuple[list[Line], int]:
    lines: list[Line] = []
    broken = 0
    for text in read_text(path).splitlines():
        line = parse(text)
        if isinstance(line, dict):
            lines.append(line)
        else:
            broken += 1
    return lines, broken


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError("this file can't be read", where=str(path), found=str(error).splitlines()[0]) from None

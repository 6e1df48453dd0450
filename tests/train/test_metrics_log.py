"""metrics.jsonl: lines survive, a resumed run forgets what it will write again, a display misses and repeats nothing."""

from __future__ import annotations

import math
from pathlib import Path

from mtids_dist.train import MetricsLog, read_lines
from mtids_dist.train.metrics_log import Tail


def test_not_finite_numbers_become_null(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "m.jsonl").append("step", step=1, loss={"a": math.nan, "b": 1.5}, cosines=[[math.inf]])
    (line,) = read_lines(tmp_path / "m.jsonl")
    assert line == {"kind": "step", "step": 1, "loss": {"a": None, "b": 1.5}, "cosines": [[None]]}


def test_rewind_forgets_steps_behind_the_checkpoint_but_no_event(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.append("event", event="started")
    for step in range(1, 6):
        log.append("step", step=step)
    log.append("validation", step=5)
    log.rewind(3)
    assert [(line["kind"], line.get("step")) for line in read_lines(tmp_path / "m.jsonl")] == [
        ("event", None), ("step", 1), ("step", 2), ("step", 3), ("event", 3),
    ]  # fmt: skip


def test_tail_sees_each_line_once_also_across_a_rewind(tmp_path: Path) -> None:
    log, tail = MetricsLog(tmp_path / "m.jsonl"), Tail(tmp_path / "m.jsonl")
    assert list(tail.new_lines()) == []
    log.append("step", step=1)
    log.append("step", step=2)
    assert [line["step"] for line in tail.new_lines()] == [1, 2]
    log.rewind(1)
    assert list(tail.new_lines()) == []
    log.append("step", step=2)
    assert [line["step"] for line in tail.new_lines()] == [2]
    log.rewind(1)
    log.append("event", event="resumed", step=1)
    assert [line["event"] for line in tail.new_lines()] == ["resumed"], "a look that comes late misses nothing"


def test_a_half_written_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    tail = Tail(path)
    assert [line["step"] for line in tail.new_lines()] == [1]
    with path.open("a") as file:
        file.write('ep", "step": 2}\n')
    assert [line["step"] for line in tail.new_lines()] == [2]

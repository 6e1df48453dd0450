"""The history: what an interrupted search goes on with, what may be deleted, where a result comes from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mtids_dist.tune import History
from mtids_dist.tune.assignment import Assignment
from mtids_dist.tune.history import Replay
from mtids_dist.tune.lineage import lineage_of


def begun(folder: Path, members: int = 3) -> History:
    history = History.open(folder / "history.jsonl")
    history.add(*({"event": "member", "member": i, "settings": {"rate": i}} for i in range(members)))
    return history


def result(history: History, member: int, generation: int, score: float, start: dict[str, Any] | None = None) -> dict[str, Any]:
    own = [line for line in history.results if line["member"] == member]
    given = start if start is not None else (own[-1] if own else None)
    assignment = Assignment(generation=generation, member=member, settings={"rate": member}, start=given)
    line = assignment.result(
        score=score,
        counts={"shared_experts": 1 + member},
        state=f"{assignment.name}/state",
        error=None,
        loss_before=None if start is None else start["score"],
        loss_after=None if start is None else start["score"] + 0.001,
        change=None,
        refused=None,
    )
    history.add(line)
    return line


def copy(member: int, generation: int, donor: dict[str, Any]) -> dict[str, Any]:
    start = {key: donor[key] for key in ("member", "generation", "id")}
    settings = {"rate": 10 + member}
    return {"event": "copy", "member": member, "generation": generation, "settings": settings, "start": start}


def test_an_interrupted_generation_is_gone_through_again_by_everybody(tmp_path: Path) -> None:
    history = begun(tmp_path)
    first = [result(history, member, 1, score) for member, score in enumerate((0.3, 0.2, 0.9))]
    history.add(copy(2, 1, first[1]), {"event": "closed", "generation": 1})
    second = result(history, 0, 2, 0.25)
    starts = History.open(history.path).starts(Replay.OPEN)
    assert starts[0].replay == (second | {"time_s": history.results[-1]["time_s"]},)
    assert (starts[0].generation, starts[1].generation, starts[2].generation) == (1, 1, 1)
    assert starts[1].state is not None
    assert starts[1].state["id"] == first[1]["id"]
    assert starts[2].state is not None
    assert starts[2].state["id"] == first[1]["id"]
    assert starts[2].settings == {"rate": 12}
    assert starts[1].replay == starts[2].replay == ()


def test_copies_that_were_not_closed_are_decided_again(tmp_path: Path) -> None:
    history = begun(tmp_path)
    lines = [result(history, member, 1, 0.1 * (1 + member)) for member in range(3)]
    history.add(copy(2, 1, lines[0]))
    starts = history.starts(Replay.OPEN)
    assert [start.generation for start in starts.values()] == [0, 0, 0]
    assert [len(start.replay) for start in starts.values()] == [1, 1, 1]
    assert starts[2].settings == {"rate": 2}


def test_others_tell_everything_again_or_nothing(tmp_path: Path) -> None:
    history = begun(tmp_path, members=2)
    result(history, 0, 1, 0.5)
    last = result(history, 0, 2, 0.4)
    history.add({"event": "stopped", "member": 0, "generation": 2, "error": None})
    again = history.starts(Replay.ALL)
    assert [line["generation"] for line in again[0].replay] == [1, 2]
    assert again[0].over
    assert not again[1].over
    assert again[1].replay == ()
    alone = history.starts(Replay.NONE)[0]
    assert alone.replay == ()
    assert alone.state is not None
    assert alone.state["id"] == last["id"]
    assert alone.generation == 2


def test_a_dropped_member_does_not_come_back(tmp_path: Path) -> None:
    history = begun(tmp_path)
    history.add({"event": "dropped", "member": 1, "generation": 0, "error": "gone"})
    assert set(history.starts(Replay.OPEN)) == {0, 2}


def test_a_failed_member_stands_on_what_it_had(tmp_path: Path) -> None:
    history = begun(tmp_path, members=1)
    first = result(history, 0, 1, 0.5)
    failed = Assignment(generation=2, member=0, settings={"rate": 0}, start=first).failure("broke")
    history.add(failed, {"event": "closed", "generation": 2})
    start = history.starts(Replay.OPEN)[0]
    assert start.generation == 2
    assert start.state is not None
    assert start.state["id"] == first["id"]
    assert first["state"] in history.needed_states()


def test_states_that_somebody_may_need_are_kept(tmp_path: Path) -> None:
    history = begun(tmp_path)
    first = [result(history, member, 1, score) for member, score in enumerate((0.1, 0.2, 0.9))]
    assert history.needed_states() == {line["state"] for line in first}
    history.add(copy(2, 1, first[1]), {"event": "closed", "generation": 1})
    second = [result(history, member, 2, 0.5, start=first[1] if member == 2 else None) for member in range(3)]
    assert {line["state"] for line in second} <= history.needed_states()
    assert {line["state"] for line in first} <= history.needed_states()
    history.add({"event": "closed", "generation": 2})
    # The best of all stays though nobody stands on it.
    assert history.needed_states() == {first[0]["state"], *(line["state"] for line in second)}


def test_ancestry_and_lineage_follow_copies(tmp_path: Path) -> None:
    history = begun(tmp_path)
    first = [result(history, member, 1, score) for member, score in enumerate((0.3, 0.2, 0.9))]
    second = result(history, 2, 2, 0.1, start=first[1])
    assert [line["id"] for line in history.ancestry(second)] == [first[1]["id"], second["id"]]
    assert history.best is not None
    assert history.best["id"] == second["id"]
    (event,) = lineage_of(history)
    assert (event["generation"], event["member"], event["donor"]) == (1, 2, 1)
    assert (event["counts_before"], event["counts_after"]) == ({"shared_experts": 2}, {"shared_experts": 3})
    assert (event["loss_before"], event["loss_after"]) == (0.2, 0.201)


def test_a_line_that_was_cut_short_is_taken_off(tmp_path: Path) -> None:
    history = begun(tmp_path)
    with history.path.open("a") as file:
        file.write('{"event": "resu')
    again = History.open(history.path)
    assert len(again.lines) == 3
    again.add({"event": "closed", "generation": math.inf})
    assert [json.loads(text) for text in history.path.read_text().splitlines()][-1]["generation"] is None

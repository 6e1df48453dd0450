"""What trackers keep is what metrics.jsonl says, read back from TensorBoard's event files and MLflow's SQLite."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from observe.recorded_lines import HISTORY, METRICS

from mtids_dist.errors import InputError, StoppedError
from mtids_dist.observe import Tracker, observers, of_search, of_training
from mtids_dist.observe.samples import training_samples
from mtids_dist.observe.trackers import PACKAGES, check_trackers, tag

Point = tuple[str, int, float]


def expected() -> list[Point]:
    """Written out here for some, so that a mistake in the tags can't hide; the rest by the samples."""
    found = [
        (tag(sample), line["step"], sample.value)
        for line in METRICS
        if line["kind"] != "event"
        for sample in training_samples(line)
    ]
    first = METRICS[2]
    assert ("loss/bright", 1, first["loss"]["bright"]) in found
    assert ("gradient_cosine/bright/upper", 1, first["cosines"][0][1]) in found
    assert ("expert_use/upper/private/0", 60, METRICS[-2]["gates"]["upper"]["use"][2]) in found
    return found


def events(folder: Path) -> Iterator[tuple[int, Point | None]]:
    """(step to purge from, None) or (0, scalar), of every event file, oldest first."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == SessionLog.START:
                yield event.step, None
            for value in event.summary.value:
                yield 0, (value.tag, event.step, value.simple_value)


def scalars(folder: Path) -> list[Point]:
    """As TensorBoard shows them: a new session voids what an earlier one said of its steps."""
    kept: list[Point] = []
    for purge, point in events(folder):
        kept = [*kept, point] if point else [old for old in kept if old[1] < purge]
    return kept


def assert_same(found: list[Point], wanted: list[Point]) -> None:
    assert [point[:2] for point in sorted(found)] == [point[:2] for point in sorted(wanted)]
    for one, other in zip(sorted(found), sorted(wanted), strict=True):
        assert one[2] == pytest.approx(other[2], rel=1e-6), one


def test_tensorboard_keeps_what_metrics_say(tmp_path: Path) -> None:
    with observers(tmp_path, on_cluster=False, trackers=[Tracker.TENSORBOARD]) as watching:
        listener = of_training(watching)
        for line in METRICS:
            listener(line)
    assert_same(scalars(tmp_path / "tensorboard"), expected())


@pytest.mark.parametrize("new_process", [False, True])
def test_steps_that_are_taken_again_are_there_once(tmp_path: Path, new_process: bool) -> None:
    """As after a lost worker (the same process goes on) or a stop (another one does)."""
    cut, back = 9, 6
    parts = [METRICS[:cut], METRICS[back:]] if new_process else [METRICS[:cut] + METRICS[back:]]
    assert METRICS[back]["step"] < METRICS[cut - 1]["step"]
    for part in parts:
        with observers(tmp_path, on_cluster=False, trackers=[Tracker.TENSORBOARD]) as watching:
            listener = of_training(watching)
            for line in part:
                listener(line)
    assert_same(scalars(tmp_path / "tensorboard"), expected())


def test_a_search_is_tracked_by_results(tmp_path: Path) -> None:
    with observers(tmp_path, on_cluster=False, trackers=[Tracker.TENSORBOARD]) as watching:
        listener = of_search(watching)
        for line in HISTORY:
            listener(line)
    best = [(step, value) for name, step, value in scalars(tmp_path / "tensorboard") if name == "search_best_score"]
    scores = [line["score"] for line in HISTORY if line["event"] == "result"]
    for step, value in best:
        assert value == pytest.approx(min(score for score in scores[:step] if score is not None))


@pytest.fixture
def mlflow() -> None:
    for package in PACKAGES[Tracker.MLFLOW]:
        pytest.importorskip(package, reason="MLflow is an extra: pip install 'mtids-dist[mlflow]'")


def rows(database: Path, query: str) -> list[tuple]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def go_on_and_stop(folder: Path) -> None:
    with observers(folder, on_cluster=False, trackers=[Tracker.MLFLOW]) as watching:
        listener = of_training(watching)
        for line in METRICS[6:]:
            listener(line)
        raise StoppedError("stopped")


@pytest.mark.slow
def test_mlflow_keeps_what_metrics_say(mlflow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    folder, settings = tmp_path / "first", {"seed": 3, "train": {"epochs": 5}, "tasks": {"bright": {}}}
    folder.mkdir()
    with observers(folder, on_cluster=False, trackers=[Tracker.MLFLOW], settings=settings) as watching:
        listener = of_training(watching)
        for line in METRICS[:6]:
            listener(line)
    with pytest.raises(StoppedError):
        go_on_and_stop(folder)
    database = folder / "mlflow.db"
    assert_same(rows(database, "select key, step, value from metrics"), expected())
    assert rows(database, "select name, status from runs") == [("first", "KILLED")], "one run, gone on with"
    assert set(rows(database, "select key, value from params")) == {("seed", "3"), ("train.epochs", "5"), ("tasks.bright", "{}")}
    assert {path.name for path in tmp_path.iterdir()} == {"first"}, "nothing beside the run folder"


@pytest.mark.slow
def test_a_server_that_is_none_is_refused_in_one_line(mlflow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with (
        pytest.raises(InputError, match="gopher://nowhere: MLflow can't be written to"),
        observers(tmp_path, on_cluster=False, trackers=[Tracker.MLFLOW]),
    ):
        pass


def test_what_is_not_installed_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, Tracker.MLFLOW, ("no_such_package",))
    with pytest.raises(InputError, match=r"--track: mlflow is not installed; allowed: pip install 'mtids-dist\[mlflow\]'"):
        check_trackers([Tracker.MLFLOW])

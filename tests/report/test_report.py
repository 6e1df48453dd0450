from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_run import make_run, make_store, write_log
from parsed_page import HOSTILE, Page

from mtids_dist.data import Store
from mtids_dist.errors import InputError
from mtids_dist.report import write_report
from mtids_dist.report.curves import _cosine
from mtids_dist.report.folder import read_run
from mtids_dist.report.ink import FAINT, INK, PALETTE, PAPER, SOFT
from mtids_dist.report.montage import montage
from mtids_dist.stations import MEDIASTINAL
from mtids_dist.tasks import MTIDS_TASKS, Task

TASKS = list(MTIDS_TASKS)
TITLES = [
    *(f"Loss: {task}" for task in TASKS),
    "Validation AUC",
    "Validation balanced accuracy",
    "Task weights",
    "Gradient cosines",
    "Gate use",
    "Confusion: region",
    "Confusion: metastasis",
    "ROC: metastasis",
    "Throughput",
    "Data wait",
]


def _page(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    assert not list(run.glob(".*")), "no draft is left behind"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("report") / "store")


@pytest.fixture(scope="session")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "demo", store)


@pytest.fixture(scope="session")
def html(finished: Path) -> str:
    return write_report(finished).read_text(encoding="utf-8")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_finished_run_has_every_picture(finished: Path, html: str) -> None:
    page = Page(html)
    assert set(TITLES) <= set(page.headings)
    assert page.tags.count("svg") == len(page.headings)
    assert page.tags.count("img") == 20, "80 nodes at every fourth"
    document = json.loads((finished / "evaluation.json").read_text())
    for task in TASKS:
        assert f"{document['tasks'][task]['auc']:.3f} [" in page.text
    assert f"{document['tasks']['metastasis']['size_only_auc']:.3f}" in page.text
    assert f"{document['auc_above_size']:+.3f}" in page.text
    assert "joint, fused" in page.text
    assert all(f">{station}</text>" in html for station in MEDIASTINAL)
    assert "Not there" not in page.text
    assert "method: ddgb" in page.text
    assert "no clinical claim" in page.text
    assert "not the paper's own equations" in page.text


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in page.loads)
    assert not re.search(r"https?://|@import|url\((?!#)|<link|<script|<iframe", html)


def test_references_inside_pictures_hold(html: str) -> None:
    page = Page(html)
    wanted = {load[1:] for load in page.loads if load.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(page.ids)
    figures = [set(re.findall(r'id="([^"]+)"', svg)) for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]
    assert sum(map(len, figures)) == len(set().union(*figures)), "two pictures share an id"


def test_pictures_take_their_colours_from_the_page(html: str) -> None:
    svgs = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--ink)" in svgs
    assert "var(--c0)" in svgs
    for fixed in (INK, SOFT, FAINT, PAPER, PALETTE[0], "#000000", "#ffffff;"):
        assert fixed not in svgs.replace("fill: #ffffff", "")


def test_the_montage_shows_the_truth_of_its_crops(finished: Path, html: str) -> None:
    rows = pq.read_table(finished / "predictions.parquet").to_pylist()
    tiles = re.findall(r"<dl>(.*?)</dl>", html, flags=re.DOTALL)
    expected = rows[2::4]
    for tile, row in zip(tiles, expected, strict=True):
        assert f"{MEDIASTINAL[row['region_label']]} →" in tile
        right = int(max(range(11), key=row["region_probabilities"].__getitem__)) == row["region_label"]
        region = tile.split("<dt>region</dt>")[1].split("</dd>")[0]
        assert ("✓" in region) == right
        assert ("✗" in region) != right
        assert ("? →" in tile) == (row["metastasis_label"] < 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "said", "absent"),
    [
        (("metrics.jsonl",), "has not been evaluated yet", "ROC: metastasis"),
        (("evaluation.json", "run.yaml"), "no curves of the training", "Task weights"),
        (("run.yaml",), "Neither validated nor evaluated", "Task weights"),
        (("metrics.jsonl", "evaluation.json", "versions.json"), "predictions.parquet is not there", "ROC: metastasis"),
    ],
)
def test_an_unfinished_run_still_has_a_page(run: Path, kept: tuple[str, ...], said: str, absent: str) -> None:
    for path in run.iterdir():
        if path.name not in kept:
            path.unlink()
    page = _page(run)
    assert said in page.text
    assert absent not in page.headings
    assert ("Task weights" in page.headings) == ("metrics.jsonl" in kept)
    assert ("Confusion: region" in page.headings) == ("evaluation.json" in kept)


def test_a_line_cut_short_is_left_out_and_said(tmp_path: Path) -> None:
    write_log(tmp_path / "run", TASKS)
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "step", "st')
    run = read_run(tmp_path / "run")
    assert run.missing[-1] == "1 line(s) of metrics.jsonl are cut short or unreadable and were left out."
    assert len(run.steps) == 400


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    lines = [{"kind": "step", "step": s, "loss": {"a": v}} for s, v in ((1, 3.0), (2, 9.0), (2, 2.0), (3, 1.0))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [line["loss"]["a"] for line in read_run(tmp_path).steps] == [3.0, 2.0, 1.0]


def test_a_moved_store_is_said_and_can_be_named(run: Path, store: Store) -> None:
    document = json.loads((run / "evaluation.json").read_text()) | {"store": "gone"}
    (run / "evaluation.json").write_text(json.dumps(document))
    moved = montage(read_run(run))
    assert moved.note == "The crops can't be shown, since the store can't be read: gone: no such store"
    assert not moved.tiles
    assert len(montage(read_run(run), store.path).tiles) == 20


def test_another_store_is_not_taken_for_the_evaluated_one(run: Path, tmp_path: Path) -> None:
    other = montage(read_run(run), make_store(tmp_path / "other", patients=30).path)
    assert "holds other nodes than were evaluated" in other.note
    assert not other.tiles


@pytest.mark.slow
def test_hostile_names_are_only_text(store: Store, tmp_path: Path) -> None:
    tasks = {HOSTILE: MTIDS_TASKS["region"], "b": MTIDS_TASKS["metastasis"], "c": Task(column="station", classes=("7", "8"))}
    run = make_run(tmp_path / "a <script>b", store, tasks)
    (run / "run.yaml").write_text(f"name: {HOSTILE}\n")
    (run / "versions.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    html = write_report(run).read_text()
    assert "<script" not in html
    assert "script" not in Page(html).tags
    assert f"Loss: {HOSTILE}" in Page(html).headings


def test_many_pairs_become_a_map(tmp_path: Path) -> None:
    names = list("abcde")
    steps = [
        {"kind": "step", "step": s, "loss": dict.fromkeys(names, 1.0), "tasks": names, "cosines": [[0.5] * 5] * 5}
        for s in range(1, 4)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
    page = _page(tmp_path)
    assert "Gradient cosines" in page.headings
    assert "d · e" in page.text


def test_cosines_follow_the_tasks_named_in_each_line(tmp_path: Path) -> None:
    line = {"tasks": ["c", "a"], "cosines": [[1.0, -0.3], [-0.3, 1.0]]}
    assert _cosine(line, a="a", b="c") == -0.3
    assert _cosine(line, a="a", b="b") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [("evaluation.json", "{"), ("evaluation.json", "[]"), ("versions.json", "1"), ("predictions.parquet", "x")],
)
def test_broken_files_are_one_line(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: this file can't be read"):
        write_report(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        write_report(tmp_path / "none")
    with pytest.raises(InputError, match="holds nothing of a run"):
        write_report(tmp_path)

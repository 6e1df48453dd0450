"""The lineage as a tree and as a picture: nothing of the history is missing, and nothing hides anything else."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from fake_search import make_asynchronous, make_search, make_without_copies
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Annotation

from mtids_dist.report import write_report
from mtids_dist.report.ink import INK, PALETTE
from mtids_dist.report.search import lineage_png, read_search
from mtids_dist.report.search.count_grids import _cells
from mtids_dist.report.search.lineage import Dot, Kind, Tree, lay_out
from mtids_dist.report.search.lineage_paint import TreePainter
from mtids_dist.report.search.tracks import loss, tracks_of
from mtids_dist.tune import History
from mtids_dist.tune.lineage import lineage_of

Make = Callable[..., Path]
CROWDED = {"members": 16, "generations": 6, "quantile": 0.5}
LARGE = {"members": 40, "generations": 20}


def tree_of(folder: Path) -> Tree:
    search = read_search(folder)
    return lay_out(search.population, finished=search.finished)


def painted(tree: Tree) -> tuple[Figure, Axes]:
    """The tree as a drawn figure."""
    painter = TreePainter(tree, title="search")
    figure = Figure(figsize=painter.size, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    painter(axes)
    canvas.draw()
    return figure, axes


def score(dot: Dot) -> float:
    return np.inf if dot.score is None else dot.score


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [make_search, make_asynchronous])
def test_the_tree_is_the_history(make: Make, seed: int, tmp_path: Path) -> None:
    folder = make(
        tmp_path / "search", seed=seed, tune={"members": 6, "generations": 6, "quantile": 0.5}, failing={(1, 2), (3, 3)}
    )
    history, tree = History.open(folder / "history.jsonl"), tree_of(folder)
    results = {line["id"]: line for line in history.results}
    dots = [(dot.member, dot.generation) for dot in tree.dots]
    assert sorted(dots) == sorted((line["member"], line["generation"]) for line in results.values())
    assert len({(dot.row, dot.generation) for dot in tree.dots}) == len(dots), "one dot hides another"

    edges = {(e.start.member, e.start.generation, e.end.member, e.end.generation, e.copied) for e in tree.edges}
    told = [(line["start"], line) for line in results.values() if line["start"]]
    assert len(tree.edges) == len(told)
    assert edges == {
        (s["member"], s["generation"], line["member"], line["generation"], s["member"] != line["member"]) for s, line in told
    }
    trained = [edge for edge in tree.edges if edge.copied and edge.end.kind is not Kind.FAILED]
    assert len(trained) == len(lineage_of(history))

    assert history.best is not None
    way = sorted((dot.generation, dot.member) for dot in tree.dots if dot.ancestor)
    assert way == sorted((line["generation"], line["member"]) for line in history.ancestry(history.best))
    assert [dot.score for dot in tree.dots if dot.best] == [history.best["score"]]
    for first, second in combinations(tree.lanes.values(), 2):
        assert first[1] < second[0], "two members share a row"


@pytest.mark.parametrize("seed", range(3))
def test_markers_say_what_became_of_the_counts(seed: int, tmp_path: Path) -> None:
    folder = make_search(tmp_path / "search", seed=seed, tune={"members": 8, "quantile": 0.5}, failing={(1, 2)})
    kinds = {(e.end.generation, e.end.member): e.end.kind for e in tree_of(folder).edges if e.copied}
    events = lineage_of(History.open(folder / "history.jsonl"))
    for event in events:
        pairs = [(before, event["counts_after"][count]) for count, before in event["counts_before"].items()]
        grown, shrunk = any(a > b for b, a in pairs), any(a < b for b, a in pairs)
        wanted = {(True, True): Kind.BOTH, (True, False): Kind.GROWN, (False, True): Kind.SHRUNK, (False, False): Kind.SAME}
        assert kinds[event["generation"] + 1, event["member"]] is wanted[grown, shrunk]
    assert {kinds[e["generation"] + 1, e["member"]] for e in events} >= {Kind.SHRUNK, Kind.SAME}


def test_counts_can_be_read_off_along_a_lane(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "search", tune={"members": 8, "quantile": 0.5}, failing={(1, 2)})
    counts = {(r["member"], r["generation"]): r["counts"] for r in History.open(folder / "history.jsonl").results}
    shown: dict[int, str] = {}
    for dot in sorted(tree_of(folder).dots, key=lambda dot: dot.generation):
        if dot.kind is Kind.FAILED:
            continue
        shown[dot.row] = dot.label.split(" ", 1)[1] if dot.label.startswith("←") else dot.label or shown[dot.row]
        now = counts[dot.member, dot.generation]
        assert shown[dot.row] == f"S{now['shared_experts']} P{now['task_experts.joint']}"


def test_a_copy_that_is_decided_and_not_trained_is_hollow(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "search", trained=8)
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    decided = max(i for i, line in enumerate(lines) if '"copy"' in line)
    (folder / "history.jsonl").write_text("".join(lines[: decided + 1]))
    tree = tree_of(folder)
    copy = History.open(folder / "history.jsonl").of("copy")[-1]
    (pending,) = [edge for edge in tree.edges if edge.end.kind is Kind.PENDING]
    assert (pending.start.member, pending.end.member) == (copy["donor"], copy["member"])
    assert pending.end.generation == copy["generation"] + 1


@pytest.mark.parametrize("make", [make_search, make_asynchronous])
def test_the_png_shows_losses_ancestry_and_failures(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path / "search", failing={(1, 2)})
    write_report(folder)
    data = (folder / "lineage.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(BytesIO(data), format="png")[..., :3]
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 700
    ink = (pixels < 0.99).any(-1)
    assert 0.02 < ink.mean() < 0.9
    assert ink[:, : pixels.shape[1] // 2].any()
    assert ink[:, pixels.shape[1] // 2 :].any()
    for colour in (INK, PALETTE[0], PALETTE[1]):
        assert (np.abs(pixels - to_rgb(colour)).max(-1) < 0.02).sum() > 50, colour


@pytest.mark.parametrize("make", [make_search, make_asynchronous])
def test_every_dot_is_where_it_belongs_and_as_blue_as_its_loss_is_low(make: Make, tmp_path: Path) -> None:
    tree = tree_of(make(tmp_path / "search", failing={(1, 2)}))
    figure, axes = painted(tree)
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    at = {dot: axes.transData.transform((dot.generation, dot.row)).astype(int) for dot in tree.dots}
    middle = {dot: pixels[len(pixels) - 1 - y, x] for dot, (x, y) in at.items()}
    from_blue = [np.abs(middle[dot] - to_rgb(PALETTE[0])).max() for dot in sorted(tree.dots, key=score) if dot.score is not None]
    assert from_blue[0] < 0.05
    assert from_blue[-1] > 0.5
    assert (np.diff(from_blue) > -0.03).all(), "a worse loss is bluer by more than a rounded pixel"
    failed = [middle[dot] for dot in tree.dots if dot.kind is Kind.FAILED]
    assert failed
    assert np.abs(np.array(failed) - to_rgb(PALETTE[1])).max() < 0.05


def test_without_failures_nothing_is_marked_as_one(tmp_path: Path) -> None:
    data = lineage_png(read_search(make_search(tmp_path / "search")))
    assert data is not None
    pixels = imread(BytesIO(data), format="png")[..., :3]
    assert not (np.abs(pixels - to_rgb(PALETTE[1])).max(-1) < 0.02).any()


@pytest.mark.parametrize(
    "tune",
    [{}, {"members": 2, "generations": 2}, CROWDED, pytest.param(LARGE, marks=pytest.mark.slow)],
    ids=["small", "two", "many", "large"],
)
def test_no_label_hides_another_or_leaves_the_picture(tune: dict[str, float], tmp_path: Path) -> None:
    tree = tree_of(make_search(tmp_path / "search", tune=tune))
    figure, axes = painted(tree)
    labels = [text for text in axes.texts if isinstance(text, Annotation)]
    boxes = np.array([text.get_window_extent().extents for text in [*labels, *axes.get_yticklabels(), *figure.legends]])
    assert len(labels) >= len(tree.lanes)
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= figure.bbox.extents[2:]).all()
    texts = boxes[: len(labels)]
    for a, b in combinations(texts, 2):
        assert (a[:2] >= b[2:] - 1).any() or (b[:2] >= a[2:] - 1).any(), "two labels overlap"


@pytest.mark.parametrize("make", [make_search, make_asynchronous])
def test_losses_are_followed_along_what_was_copied(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path / "search", failing={(1, 2)})
    history = History.open(folder / "history.jsonl")
    for line, track in zip(history.results, tracks_of(read_search(folder).population, loss), strict=True):
        start = line["start"] and history.result(line["start"]["id"])
        assert track.start == (start["generation"] if start else 0)
        assert np.isnan(track.before) if start is None else track.before == start["score"]
        copied = start and start["member"] != line["member"]
        if line["score"] is None:
            assert np.isnan(track.value)
        else:
            assert track.value == line["score"]
            assert not copied or track.after == line["loss_after"]


def test_count_grids_count_every_member_once(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "search", tune={"members": 8}, failing={(1, 2)}, dropped={3: 2})
    cells = _cells(read_search(folder), "shared_experts")
    trained = [line["generation"] for line in History.open(folder / "history.jsonl").results if line["counts"]]
    for generation in range(1, 6):
        assert sum(n for (g, _), n in cells.items() if g == generation) == trained.count(generation)


def test_searches_without_copies_have_no_png(tmp_path: Path) -> None:
    assert lineage_png(read_search(make_without_copies(tmp_path / "search", "random"))) is None

"""The page of a search folder: everything that its files say is on it, whatever the search was and however far it came."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_run import make_run, make_store
from fake_search import ERROR, TASK_WISE, make_asynchronous, make_search, make_without_copies
from parsed_page import HOSTILE, Page

from mtids_dist.errors import InputError
from mtids_dist.report import write_report
from mtids_dist.tune import History

COPIES, MEMBERS = ("after generation", "member", "copied"), ("member", "generation", "validation loss")
FAILING = frozenset({(1, 2), (2, 3)})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("search")
    wide = {"space": TASK_WISE, "members": 6, "generations": 6}
    return {
        "finished": make_search(home / "finished", failing=FAILING),
        "task-wise": make_search(home / "task-wise", tune=wide, dropped={4: 2}, seed=1),
        "asynchronous": make_asynchronous(home / "asynchronous", tune={"generations": 6, "quantile": 0.5}),
        "unfinished": make_search(home / "unfinished", trained=8),
    }


@pytest.fixture
def search(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["finished"], tmp_path / "search"))


@pytest.fixture(scope="session")
def pages(made: dict[str, Path]) -> dict[str, Page]:
    return {name: page_of(folder) for name, folder in made.items()}


def page_of(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob(".*")), "no draft is left behind"
    return Page(path.read_text(encoding="utf-8"))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "history.jsonl").read_text().splitlines()]


def rewrite(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def told(number: float | None) -> str:
    return "–" if number is None else f"{number:.4f}"  # noqa: RUF001


@pytest.mark.parametrize("name", ["finished", "task-wise", "asynchronous", "unfinished"])
def test_every_copy_is_in_the_table_with_its_losses(made: dict[str, Path], pages: dict[str, Page], name: str) -> None:
    events = json.loads((made[name] / "lineage.json").read_text())
    rows = pages[name].table(*COPIES)
    assert events
    for row, event in zip(rows, events, strict=True):
        before, after = event["loss_before"], event["loss_after"]
        assert row[:3] == [str(event["generation"]), str(event["member"]), f"member {event['donor']}"]
        assert row[4:8] == [told(before), told(after), f"{100 * (after / before - 1):+.3f} %", told(event["change"])]
        assert row[8] == (event["refused"] or "")


def test_changed_counts_are_marked_task_by_task(made: dict[str, Path], pages: dict[str, Page]) -> None:
    events = json.loads((made["task-wise"] / "lineage.json").read_text())
    rows = pages["task-wise"].table(*COPIES)
    changed = 0
    for row, event in zip(rows, events, strict=True):
        for count, before in event["counts_before"].items():
            after, name = event["counts_after"][count], count.removeprefix("task_experts.").removesuffix("_experts")
            if before != after:
                changed += 1
                assert f"{name} {before} → {after} {'▲' if after > before else '▼'}" in row[3]
    assert changed


@pytest.mark.parametrize("name", ["finished", "task-wise", "asynchronous", "unfinished"])
def test_the_headline_names_the_best_member(made: dict[str, Path], pages: dict[str, Page], name: str) -> None:
    history = History.open(made[name] / "history.jsonl")
    best, page = history.best, pages[name]
    assert best is not None
    assert told(best["score"]) in page.text
    assert f"member {best['member']}is the best, after generation {best['generation']}" in page.text
    assert f"{best['settings']['train.optimizer.learning_rate']:.3g}" in page.text
    way = next(table for table in page.tables if table[0][:2] == ["member", "generation"] and table[-1][-1].startswith("best"))
    assert [[int(cell) for cell in row[:2]] for row in way[1:]] == [
        [line["member"], line["generation"]] for line in history.ancestry(best)
    ]
    assert ("1.2 s" in page.text) == (name in ("finished", "task-wise"))
    assert ("not finished, 8 of 20 generations trained" in page.text) == (name == "unfinished")


@pytest.mark.parametrize("name", ["finished", "task-wise", "asynchronous", "unfinished"])
def test_every_member_stands_where_it_stood_last(made: dict[str, Path], pages: dict[str, Page], name: str) -> None:
    last = {line["member"]: line for line in History.open(made[name] / "history.jsonl").results}
    page = pages[name]
    rows = [table for table in page.tables if tuple(table[0][:3]) == MEMBERS][-1][1:]
    assert {int(row[0]) for row in rows} == set(last)
    for row in rows:
        line = last[int(row[0])]
        assert row[1:3] == [str(line["generation"]), told(line["score"])]
        assert row[4] == f"{line['parameters']:,}"
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)


def test_failures_and_lost_members_are_named(pages: dict[str, Page]) -> None:
    page = pages["finished"]
    for member, generation in FAILING:
        assert f"Member {member} failed in generation {generation}: {ERROR}" in page.text
    assert "training failed" in page.text
    lost = pages["task-wise"]
    assert "Member 4 was dropped after generation 2: its process was lost" in lost.text
    assert "training failed" not in lost.text


def test_a_loss_that_was_infinite_is_a_failure_too(search: Path) -> None:
    lines = lines_of(search)
    last = next(line for line in reversed(lines) if line["event"] == "result")
    last["score"] = None
    rewrite(search, lines)
    assert f"Member {last['member']} failed in generation {last['generation']}: its loss was not finite" in page_of(search).text


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("finished", ["Who copied whom", "Validation loss", "Shared experts", "Private experts of each task",
                      "train.optimizer.learning_rate", "balance.options.tau"]),
        ("task-wise", ["Who copied whom", "Validation loss", "Shared experts", "Private experts: joint",
                       "Private experts: region", "train.optimizer.learning_rate", "balance.method"]),
    ],
)  # fmt: skip
def test_a_search_has_every_picture(pages: dict[str, Page], name: str, titles: list[str]) -> None:
    page = pages[name]
    assert [heading for heading in page.headings if heading != "The way to the best member"] == titles
    assert page.tags.count("svg") == len(titles)


@pytest.mark.parametrize("scheduler", ["asha", "random"])
def test_a_search_without_copies_says_so(tmp_path: Path, scheduler: str) -> None:
    page = page_of(make_without_copies(tmp_path / "search", scheduler))
    assert "Members don't copy each other in" in page.text
    assert "Who copied whom" not in page.headings
    assert not (tmp_path / "search" / "lineage.png").exists()
    assert not page.table(*COPIES)
    assert "Validation loss" in page.headings
    assert ("13 of 20 members have not trained" in page.text) == (scheduler == "asha")


def test_a_search_that_has_just_begun_has_a_page(search: Path) -> None:
    (search / "lineage.json").unlink()
    (search / "lineage.png").unlink(missing_ok=True)
    shutil.rmtree(search / "best")
    lines = [line for line in lines_of(search) if line["event"] in ("member", "started")]
    for number in range(len(lines) + 1):
        rewrite(search, lines[:number])
        page = page_of(search)
        assert "No generation has been trained yet" in page.text
        assert "Who copied whom" not in page.headings
    assert not (search / "lineage.png").exists()


@pytest.mark.slow
def test_every_beginning_of_a_history_has_a_page(search: Path) -> None:
    lines = lines_of(search)
    for number in range(len(lines), 0, -7):
        rewrite(search, lines[:number])
        assert f"{sum(line['event'] == 'result' for line in lines[:number])} of 20 generations trained" in page_of(search).text


def test_an_evaluated_winner_brings_its_results(pages: dict[str, Page], search: Path, tmp_path: Path) -> None:
    assert "best/, a run folder" in pages["finished"].text
    assert "it has not been evaluated yet" in pages["finished"].text
    make_run(search / "best", make_store(tmp_path / "store", patients=15))
    evaluation, page = json.loads((search / "best" / "evaluation.json").read_text()), page_of(search)
    assert f"{evaluation['rows']} nodes of {evaluation['patients']} patients" in page.text
    assert [row[0] for row in page.table("task", "n")][:3] == list(evaluation["tasks"])


@pytest.mark.parametrize("name", ["finished", "task-wise", "asynchronous"])
def test_nothing_is_loaded_from_elsewhere(made: dict[str, Path], pages: dict[str, Page], name: str) -> None:
    html, page = (made[name] / "report.html").read_text(encoding="utf-8"), pages[name]
    assert all(load.startswith("#") for load in page.loads)
    assert not re.search(r"https?://|@import|url\((?!#)|<link|<script|<iframe", html)
    wanted = {load[1:] for load in page.loads} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)), "two pictures share an id"


def test_hostile_texts_are_only_text(search: Path) -> None:
    folder = search.rename(search.with_name("a <script>b"))
    lines = lines_of(folder)
    for line in lines:
        if line["event"] in ("member", "result", "copy"):
            line["settings"][HOSTILE] = HOSTILE
        if line.get("error"):
            line["error"] = HOSTILE
    rewrite(folder, lines)
    (folder / "versions.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    html = write_report(folder).read_text()
    assert "<script" not in html
    assert HOSTILE in Page(html).text


def test_a_last_line_cut_short_is_left_out_and_said(search: Path, pages: dict[str, Page]) -> None:
    with (search / "history.jsonl").open("a") as file:
        file.write('{"event": "resu')
    page = page_of(search)
    assert "The last line of history.jsonl is cut short and was left out." in page.text
    assert page.tables == pages["finished"].tables


@pytest.mark.parametrize("name", ["run.yaml", "versions.json", "lineage.json"])
def test_what_is_not_there_is_said(search: Path, name: str) -> None:
    (search / name).unlink()
    page = page_of(search)
    assert f"{name} is not there" in page.text
    assert "Who copied whom" in page.headings
    assert "Shared experts" in page.headings


def test_a_lineage_that_lags_behind_is_said(search: Path) -> None:
    events = json.loads((search / "lineage.json").read_text())
    (search / "lineage.json").write_text(json.dumps(events[:-1]))
    said = f"Copies in lineage.json: {len(events) - 1}; trained copies in history.jsonl: {len(events)}."
    assert said in page_of(search).text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lineage.json", "{"),
        ("lineage.json", "{}"),
        ("lineage.json", '[{"generation": 1, "member": "a"}]'),
        ("versions.json", "[]"),
        ("run.yaml", "a: [1"),
        ("run.yaml", "- 1"),
        ("run.yaml", "tune: {generations: many}"),
        ("best/evaluation.json", "{"),
    ],
)
def test_broken_files_are_one_line(search: Path, name: str, content: str) -> None:
    (search / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}.*can't be read") as caught:
        write_report(search)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: line.pop("member"), "member: Field required"),
        (lambda line: line.update(score="low"), "score"),
        (lambda line: line.update(counts=[1]), "counts"),
        (lambda line: line.update(start={"member": 1, "generation": 1, "id": "gone"}), "goes on from a result that is not told"),
        (lambda line: line.update(start={"member": line["member"], "generation": 1, "id": line["id"]}), "goes on from a result"),
        (lambda line: line.update(id="generations/001/member-000"), "told twice"),
        (lambda line: line.pop("event"), "a JSON object with event"),
    ],
)
def test_broken_lines_are_named(search: Path, change: Any, said: str) -> None:
    lines = lines_of(search)
    number = max(i for i, line in enumerate(lines) if line["event"] == "result")
    change(lines[number])
    rewrite(search, lines)
    with pytest.raises(InputError, match=rf"history.jsonl, line {number + 1}: .*{said}"):
        write_report(search)


def test_a_line_that_is_no_json_is_named(search: Path) -> None:
    text = (search / "history.jsonl").read_text()
    (search / "history.jsonl").write_text(text.replace('{"event": "started"', '{"event" "started"'))
    with pytest.raises(InputError, match=r"history.jsonl, line 5: this can't be read"):
        write_report(search)


def test_numbers_are_not_asked_of_run_yaml_alone(search: Path) -> None:
    tree = yaml.safe_load((search / "run.yaml").read_text())
    del tree["tune"]
    (search / "run.yaml").write_text(yaml.safe_dump(tree))
    assert "4 members x 5 generations" in page_of(search).text

"""What is there of a search: the files of its folder, read as far as they have come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mtids_dist.errors import InputError
from mtids_dist.report.files import parse, read_object, read_text
from mtids_dist.report.folder import DESCRIPTION, EVALUATION, VERSIONS, Line, RunFolder, read_run
from mtids_dist.report.search.population import Population
from mtids_dist.report.search.records import Begun, Copy, End, LineageEvent, Plan, Record, Result, read_record
from mtids_dist.report.search.search import Search

HISTORY, LINEAGE, BEST = "history.jsonl", "lineage.json", "best"
_RECORDS: Mapping[str, type[Record]] = {"member": Begun, "result": Result, "copy": Copy, "stopped": End, "dropped": End}
_NOTES = ("started", "resumed", "finished")


def holds_search(path: Path) -> bool:
    """Whether a folder is a search's; a run's has metrics.jsonl instead."""
    return (path / HISTORY).is_file()


def read_search(path: Path) -> Search:
    """Read a search folder, finished or not; InputError where one of its files is broken."""
    lines, missing = _read_history(path / HISTORY)
    description = read_text(path / DESCRIPTION) if (path / DESCRIPTION).is_file() else ""
    tree = _read_yaml(path / DESCRIPTION, description)
    population, notes = _population(path / HISTORY, lines), tuple(line for _, line in lines if line["event"] in _NOTES)
    lineage = _read_lineage(path / LINEAGE)
    versions = read_object(path / VERSIONS) if (path / VERSIONS).is_file() else {}
    return Search(
        path=path,
        plan=read_record(Plan, tree.get("tune") or {}, path / DESCRIPTION),
        population=population,
        lineage=lineage or (),
        events=notes,
        seed=next((line["seed"] for line in reversed(notes) if "seed" in line), tree.get("seed")),
        winner=_read_winner(path / BEST),
        exported=(path / BEST).is_dir(),
        description=description,
        versions=versions,
        missing=(*missing, *_missing(description, versions, lineage, population)),
    )


def _read_history(path: Path) -> tuple[list[tuple[int, Line]], list[str]]:
    """(number in the file, line) of every whole line; and what has to be said of the file."""
    *texts, rest = read_text(path).split("\n")
    lines = [(number, parse(text)) for number, text in enumerate(texts, start=1)]
    for number, line in lines:
        if not isinstance(line, dict) or not isinstance(line.get("event"), str):
            raise InputError("this can't be read", where=_line(path, number), allowed="a JSON object with event")
    return lines, [f"The last line of {path.name} is cut short and was left out."] if rest else []


def _line(path: Path, number: int) -> str:
    return f"{path}, line {number}"


def _population(path: Path, lines: list[tuple[int, Line]]) -> Population:
    begun: dict[int, Begun] = {}
    story: list[Result | Copy] = []
    ends: list[End] = []
    known: set[str] = set()
    for number, line in lines:
        if line["event"] not in _RECORDS:
            continue
        where = _line(path, number)
        record = read_record(_RECORDS[line["event"]], line, where)
        if isinstance(record, Begun):
            begun[record.member] = record
        elif isinstance(record, End):
            ends.append(record)
        elif isinstance(record, Result | Copy):
            _refuse_loose_end(record, known, where)
            story.append(record)
    return Population(begun=begun, story=tuple(story), ends=tuple(ends))


def _refuse_loose_end(record: Result | Copy, known: set[str], where: str) -> None:
    """What a line goes on from must have been told before it, so that every ancestry ends."""
    if record.start is not None and record.start.id not in known:
        raise InputError("this goes on from a result that is not told before it", where=where, found=record.start.id)
    if isinstance(record, Result):
        if record.id in known:
            raise InputError("this result is told twice", where=where, found=record.id)
        known.add(record.id)


def _read_yaml(path: Path, text: str) -> Mapping[str, Any]:
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        tree = None
    if not isinstance(tree, Mapping):
        raise InputError("this file can't be read", where=str(path), allowed="a run description in YAML")
    return tree


def _read_lineage(path: Path) -> tuple[LineageEvent, ...] | None:
    if not path.is_file():
        return None
    events = parse(read_text(path))
    if not isinstance(events, list):
        raise InputError("this file can't be read", where=str(path), allowed="a JSON list of copies")
    return tuple(read_record(LineageEvent, event, f"{path}, copy {i}") for i, event in enumerate(events, start=1))


def _read_winner(path: Path) -> RunFolder | None:
    """The winner's run folder, once it has been evaluated."""
    return read_run(path) if (path / EVALUATION).is_file() else None


def _missing(
    description: str, versions: Mapping[str, str], lineage: tuple[LineageEvent, ...] | None, population: Population
) -> list[str]:
    copies = sum(result.donor is not None and result.error is None for result in population.results)
    said = []
    if not description:
        said.append("run.yaml is not there: what was searched can't be shown.")
    if not versions:
        said.append("versions.json is not there: what it ran with can't be shown.")
    if lineage is None and copies:
        said.append("lineage.json is not there: what the copies did to the loss can't be shown.")
    elif lineage is not None and len(lineage) != copies:
        said.append(f"Copies in lineage.json: {len(lineage)}; trained copies in history.jsonl: {copies}.")
    return said

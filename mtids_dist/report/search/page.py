"""The page of a search folder."""

from __future__ import annotations

from mtids_dist.report.html import render, told_events
from mtids_dist.report.ink import PALETTE, Picture
from mtids_dist.report.search.count_grids import count_pictures
from mtids_dist.report.search.learned import loss_picture, setting_pictures
from mtids_dist.report.search.lineage_picture import lineage_picture
from mtids_dist.report.search.search import Search
from mtids_dist.report.search.summary import cards, lineage_sentence, subtitle, unbegun_sentence
from mtids_dist.report.search.tables import ancestry_rows, copy_rows, member_rows, settings_text
from mtids_dist.report.table import headline


def search_page(search: Search) -> str:
    """The page of a search as HTML."""
    best, winner = search.population.best, search.winner
    lineage = lineage_picture(search)
    return render(
        "search.html.j2",
        kind="search",
        folder=search,
        search=search,
        subtitle=subtitle(search),
        cards=cards(search),
        best_settings=[] if best is None else settings_text(best.settings, search.other_settings),
        failures=search.population.failures,
        evaluation=None if winner is None else winner.evaluation,
        rows=[] if winner is None else headline(winner),
        colours={} if winner is None else {task: i % len(PALETTE) for i, task in enumerate(winner.tasks)},
        lineage=[] if lineage is None else [lineage],
        lineage_sentence=lineage_sentence(search),
        copies=copy_rows(search),
        ancestry=ancestry_rows(search),
        learned=_learned(search),
        members=member_rows(search),
        unbegun=unbegun_sentence(search),
        settings=[key.rsplit(".", 1)[-1].replace("_", " ") for key in search.other_settings],
        events=told_events(search.events),
    )


def _learned(search: Search) -> list[Picture]:
    loss = loss_picture(search)
    return [*([] if loss is None else [loss]), *count_pictures(search), *setting_pictures(search)]

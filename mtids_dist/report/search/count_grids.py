"""How many members have how many experts, generation by generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

from mtids_dist.report.ink import FAINT, INK, PALETTE, Picture, draw
from mtids_dist.report.search.expert_counts import groups_of
from mtids_dist.report.search.records import OF_TASK, Result
from mtids_dist.report.search.search import Search

_CELL_IN = 0.3
_MOST_TICKS = 12


def count_pictures(search: Search) -> list[Picture]:
    """One picture for each count that differs between results."""
    groups = groups_of(result.counts for result in search.population.results if result.counts)
    pictures = []
    for count, title in groups.items():
        cells = _cells(search, count)
        levels = _levels(search, count, cells)
        if len(levels) > 1:
            pictures.append(_grid(title, cells, levels, _best_of_generations(search, count)))
    return pictures


def _cells(search: Search, count: str) -> Mapping[tuple[int, int], int]:
    """(generation, number of experts) -> members; the later result of a member that trained a generation again."""
    of_member = {(r.generation, r.member): r.counts[count] for r in search.population.results if r.counts and count in r.counts}
    return Counter((generation, level) for (generation, _), level in of_member.items())


def _levels(search: Search, count: str, cells: Mapping[tuple[int, int], int]) -> list[int]:
    """The numbers of experts that are searched, and those that were met."""
    searched: list[int] = []
    for key in (f"model.{count}", f"model.{OF_TASK}" if count.startswith(OF_TASK) else ""):
        values = search.plan.space.get(key)
        searched += [value for value in values if isinstance(value, int)] if isinstance(values, list) else []
    return sorted({*searched, *(level for _, level in cells)})


def _best_of_generations(search: Search, count: str) -> Mapping[int, int]:
    """Generation -> the count of the member with the lowest loss in it."""
    best: dict[int, Result] = {}
    for result in search.population.results:
        if result.score is None or not result.counts or count not in result.counts:
            continue
        known = best.get(result.generation)
        if known is None or known.score is None or result.score < known.score:
            best[result.generation] = result
    return {generation: result.counts[count] for generation, result in best.items() if result.counts}


def _grid(title: str, cells: Mapping[tuple[int, int], int], levels: Sequence[int], best: Mapping[int, int]) -> Picture:
    generations = max(generation for generation, _ in cells)
    wide = generations > _MOST_TICKS
    size = 6.6 if wide else 3.9, 0.9 + _CELL_IN * max(len(levels), 4)
    caption = "Numbers are members, the colour is their share of the generation; framed: the count of its best member."
    return draw(
        title,
        caption,
        lambda axes: _paint(axes, cells, levels, best, generations),
        size=size,
        wide=wide,
    )


def _paint(
    axes: Axes, cells: Mapping[tuple[int, int], int], levels: Sequence[int], best: Mapping[int, int], generations: int
) -> None:
    of_generation: Counter[int] = Counter()
    for (generation, _), members in cells.items():
        of_generation[generation] += members
    for (generation, level), members in cells.items():
        row, share = levels.index(level), members / of_generation[generation]
        axes.add_patch(Rectangle((generation - 0.46, row - 0.46), 0.92, 0.92, facecolor=PALETTE[0], alpha=share, linewidth=0))
        colour = "white" if share > 0.6 else INK
        axes.text(generation, row, str(members), ha="center", va="center", fontsize=8, color=colour)
    for generation, level in best.items():
        at = (generation - 0.46, levels.index(level) - 0.46)
        axes.add_patch(Rectangle(at, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.6))
    axes.set_xlim(0.4, generations + 0.6)
    axes.set_ylim(-0.6, len(levels) - 0.4)
    step = -(-generations // _MOST_TICKS)
    axes.xaxis.set_major_locator(FixedLocator(range(1, generations + 1, step)))
    axes.set_yticks(range(len(levels)), [str(level) for level in levels])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.grid(visible=False)
    axes.tick_params(colors=FAINT, labelcolor=INK, length=0)
    axes.set_xlabel("generation")
    axes.set_ylabel("experts")

"""Pictures of what the population learned: validation loss, searched settings, expert counts over generations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtids_dist.report.ink import FAINT, INK, PALETTE, SOFT, Picture, draw
from mtids_dist.report.search.lineage import Kind
from mtids_dist.report.search.lineage_paint import MARKERS
from mtids_dist.report.search.records import Result
from mtids_dist.report.search.search import Search
from mtids_dist.report.search.tracks import NAN, Measure, Track, loss, tracks_of

_COPIES = (Kind.SAME, Kind.GROWN, Kind.SHRUNK, Kind.BOTH)


def loss_picture(search: Search) -> Picture | None:
    """Validation loss of every member over generations, with the jump at every copy."""
    tracks = tracks_of(search.population, loss)
    begun = [track.after for track in tracks if track.kind in _COPIES]
    known = [value for value in (*begun, *(track.value for track in tracks)) if math.isfinite(value)]
    if not known:
        return None
    top = _top(known)

    def paint(axes: Axes) -> None:
        _lines(axes, search, tracks)
        _jumps(axes, tracks)
        _failures(axes, tracks)
        if max(known) > top:
            axes.set_ylim(min(known) - 0.05 * (top - min(known)), top)
        _finish(axes, "validation loss")
        axes.figure.legend(loc="outside lower left", ncols=4)

    return draw("Validation loss", _loss_caption(tracks, known, top), paint, size=(6.6, 4.2), wide=True)


def _loss_caption(tracks: Sequence[Track], known: Sequence[float], top: float) -> str:
    said = ["Mean over tasks, each divided by the log of its classes."]
    if any(track.kind in _COPIES for track in tracks):
        said.append("A copy begins at its marker, with the donor's loss; a stroke from there leads to its loss after the resize.")
    if any(track.kind is Kind.FAILED for track in tracks):
        said.append("Crosses at the top: training failed.")
    if max(known) > top:
        said.append(f"Above the picture: {sum(value > top for value in known)} of {len(known)} losses, up to {max(known):.4g}.")
    return " ".join(said)


def _top(losses: Sequence[float]) -> float:
    """Where the picture ends: a few members that went astray would else leave the others one line."""
    lowest, usual = min(losses), float(np.quantile(losses, 0.9))
    return min(max(losses), usual + (usual - lowest)) if usual > lowest else max(losses)


def setting_pictures(search: Search) -> list[Picture]:
    """One picture for each searched setting that is no expert count."""
    return [picture for key in search.other_settings if (picture := _setting(search, key))]


def _setting(search: Search, key: str) -> Picture | None:
    space = search.plan.space.get(key)
    choices = space if isinstance(space, list) else None
    tracks = tracks_of(search.population, _measure_of(key, choices))
    if not any(math.isfinite(track.value) for track in tracks):
        return None

    def paint(axes: Axes) -> None:
        _lines(axes, search, tracks)
        if choices is not None:
            axes.set_yticks(range(len(choices)), [str(choice) for choice in choices])
        elif isinstance(space, dict) and space.get("log"):
            axes.set_yscale("log")
        _finish(axes, key.rsplit(".", 1)[-1].replace("_", " "))

    strokes = "; a vertical stroke leads from the donor's to the copy's" if search.copies else ""
    look = "Thick: ancestry of the best." if _are_many(search) else "Colours as in the picture of the loss."
    caption = f"Each generation's value{strokes}. {look}"
    return draw(key, caption, paint, size=(3.9, 2.9))


def _measure_of(key: str, choices: Sequence[Any] | None) -> Measure:
    def number(result: Result | None) -> float | None:
        value = None if result is None else result.settings.get(key)
        if choices is not None:
            return float(choices.index(value)) if value in choices else None
        return float(value) if isinstance(value, int | float) else None

    return lambda result, origin: (number(origin), number(result), number(result))


def _lines(axes: Axes, search: Search, tracks: Sequence[Track]) -> None:
    """A line a member, broken where it gave up its own; with it the way that led to the best."""
    members = list(search.population.last)
    many = _are_many(search)
    for i, member in enumerate(members):
        mine = [track for track in tracks if track.result.member == member]
        colour, label = (SOFT, None) if many else (PALETTE[i], f"member {member}")
        alpha = 0.45 if many else 0.9
        axes.plot(*_points(mine), label=label, color=colour, alpha=alpha, linewidth=1.2)
        ends = [track.result.generation for track in mine], [track.value for track in mine]
        # A line of one point would not be seen.
        axes.plot(*ends, linestyle="none", marker="o", markersize=2.5, color=colour, alpha=alpha)
    width, alpha, above = (2.2, 1.0, 3) if many else (7.0, 0.2, 1)
    way = _points([track for track in tracks if track.ancestor], joined=True)
    axes.plot(*way, label="ancestry of the best", color=INK, linewidth=width, alpha=alpha, zorder=above)


def _are_many(search: Search) -> bool:
    """More members than colours: they become one crowd."""
    return len(search.population.last) > len(PALETTE)


def _points(tracks: Sequence[Track], *, joined: bool = False) -> tuple[list[float], list[float]]:
    """Corners of a line; not a number where the pen is lifted."""
    x: list[float] = []
    y: list[float] = []
    for track in tracks:
        if track.kind is not Kind.TRAINED and not joined:
            x, y = [*x, NAN], [*y, NAN]
        x += [track.start, track.start, track.result.generation]
        y += [track.before, track.after, track.value]
    return x, y


def _jumps(axes: Axes, tracks: Sequence[Track]) -> None:
    for kind in _COPIES:
        found = [track for track in tracks if track.kind is kind]
        x, y = [track.start for track in found], [track.before for track in found]
        if found:
            # fmt: off
            axes.plot(
                x, y, linestyle="none", marker=MARKERS[kind], markersize=5, color=SOFT, markerfacecolor="none",
                label=kind.value, zorder=4,
            )
            # fmt: on


def _failures(axes: Axes, tracks: Sequence[Track]) -> None:
    at = [track.result.generation for track in tracks if track.kind is Kind.FAILED]
    top = axes.get_xaxis_transform()
    axes.plot(at, [0.97] * len(at), linestyle="none", marker=MARKERS[Kind.FAILED], color=PALETTE[1], transform=top)


def _finish(axes: Axes, ylabel: str) -> None:
    axes.set_xlabel("generation")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.tick_params(colors=FAINT, labelcolor=INK, which="both")

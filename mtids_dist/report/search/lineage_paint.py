"""A tree of generations on one set of axes."""

from __future__ import annotations

from bisect import bisect_left
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path

from mtids_dist.report.ink import FAINT, INK, PALETTE, PAPER, SOFT
from mtids_dist.report.search.lineage import Dot, Edge, Kind, Tree

MARKERS = {
    Kind.TRAINED: "o",
    Kind.SAME: "s",
    Kind.GROWN: "^",
    Kind.SHRUNK: "v",
    Kind.BOTH: "D",
    Kind.FAILED: "X",
    Kind.PENDING: "o",
}
Rgba = tuple[float, ...]

_LOSS, _FAILED = PALETTE[0], PALETTE[1]
_FAINTEST = 0.06
_CROWDED = 12
"""With more rows than this, lanes lie closer and lines that don't lead to the best step back."""
_DOT, _RING = 72, 210
"""Areas of markers, in points squared."""
_DOT_IN, _CHARACTER_IN, _HANDLE_IN = 0.075, 0.062, 2.0
"""Half of a dot with its rim, where an arrow ends; a label's letter; an entry of the legend."""


class TreePainter:
    """Paints lanes, edges, dots, labels and the legend; knows how many inches they take."""

    def __init__(self, tree: Tree, title: str = "") -> None:
        self._tree, self._title = tree, title
        self._scores = sorted(dot.score for dot in tree.dots if dot.score is not None)
        self._crowded = tree.rows > _CROWDED
        self._column_in = max(0.85, 0.2 + _CHARACTER_IN * max((len(dot.label) for dot in tree.dots), default=0))
        self._row_in = 0.44 if self._crowded else 0.54

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        width = max(5.5, 1.1 + self._column_in * self._tree.generations)
        return width, 0.9 + self._row_in * self._tree.rows + 0.2 * -(-self._entries // self._legend_columns(width))

    @property
    def _entries(self) -> int:
        return len(self._handles())

    def __call__(self, axes: Axes) -> None:
        """Paint it."""
        self._lay_axes(axes)
        for edge in self._tree.edges:
            (self._arrow if edge.copied else self._line)(axes, edge)
        self._dots(axes)
        for dot in self._tree.dots:
            self._label(axes, dot)
        axes.figure.legend(
            handles=self._handles(), loc="outside lower left", ncols=self._legend_columns(self.size[0]), handletextpad=0.5
        )

    def _lay_axes(self, axes: Axes) -> None:
        tree = self._tree
        axes.set_xlim(0.5, tree.generations + 0.5)
        axes.set_ylim(tree.rows - 0.45, -0.6)
        axes.set_xticks(range(1, tree.generations + 1))
        middles = [(first + last) / 2 for first, last in tree.lanes.values()]
        axes.set_yticks(middles, [f"member {member}" for member in tree.lanes])
        axes.tick_params(colors=FAINT, labelcolor=INK, length=0)
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel("generation")
        axes.set_title(self._title, loc="left", fontweight="bold")
        for first, last in tree.lanes.values():
            axes.axhspan(first - 0.44, last + 0.44, facecolor=FAINT, alpha=0.3, linewidth=0, zorder=0)

    def _stroke(self, edge: Edge) -> dict[str, Any]:
        faint = 0.55 if self._crowded else 0.9
        return {
            "color": INK if edge.ancestor else SOFT,
            "linewidth": 2.4 if edge.ancestor else 0.9,
            "alpha": 1.0 if edge.ancestor else faint,
            "linestyle": "--" if edge.end.kind is Kind.PENDING else "-",
            "zorder": 2 if edge.ancestor else 1,
        }

    def _line(self, axes: Axes, edge: Edge) -> None:
        axes.plot(
            (edge.start.generation, edge.end.generation),
            (edge.start.row, edge.end.row),
            solid_capstyle="butt",
            **self._stroke(edge),
        )

    def _arrow(self, axes: Axes, edge: Edge) -> None:
        """Leaves the donor's lane and enters the copier's along them, so that it can be told apart where lanes lie close."""
        gap = _DOT_IN / self._column_in
        start, end = edge.start.generation + gap, edge.end.generation - 1.3 * gap
        middle = (start + end) / 2
        points = [(start, edge.start.row), (middle, edge.start.row), (middle, edge.end.row), (end, edge.end.row)]
        path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=8, **self._stroke(edge)))

    def _dots(self, axes: Axes) -> None:
        def look(dot: Dot) -> tuple[str, bool]:
            return dot.kind.name, dot.ancestor

        for _, group in groupby(sorted(self._tree.dots, key=look), key=look):
            dots = list(group)
            at = [dot.generation for dot in dots], [dot.row for dot in dots]
            marker = MARKERS[dots[0].kind]
            # The ground under a translucent dot, so that no line shines through it.
            axes.scatter(*at, marker=marker, s=_DOT, facecolor=PAPER, edgecolor="none", zorder=3)
            axes.scatter(*at, marker=marker, s=_DOT, facecolor=[self._fill(dot) for dot in dots], zorder=4, **self._rim(dots[0]))
        best = [dot for dot in self._tree.dots if dot.best]
        axes.scatter(
            [dot.generation for dot in best], [dot.row for dot in best],
            marker="o", s=_RING, facecolor="none", edgecolor=INK, linewidth=1.2, zorder=4,
        )  # fmt: skip

    def _rim(self, dot: Dot) -> dict[str, Any]:
        failed = dot.kind is Kind.FAILED
        return {
            "edgecolor": _FAILED if failed else INK if dot.ancestor else SOFT,
            "linewidth": 1.8 if dot.ancestor else 0.8,
            "linestyle": "--" if dot.kind is Kind.PENDING else "-",
        }

    def _fill(self, dot: Dot) -> Rgba:
        if dot.kind is Kind.FAILED:
            return to_rgba(_FAILED)
        return to_rgba(_LOSS, 0.0 if dot.score is None else self._shade(dot.score))

    def _shade(self, score: float) -> float:
        """By rank: the losses of the first generations would else leave all later ones alike."""
        rank = bisect_left(self._scores, score) / max(len(self._scores) - 1, 1)
        return 1.0 - (1.0 - _FAINTEST) * rank

    def _label(self, axes: Axes, dot: Dot) -> None:
        if dot.dropped:
            at: dict[str, Any] = {
                "xytext": (9, 0),
                "textcoords": "offset points",
                "va": "center",
                "fontsize": 7,
                "color": _FAILED,
            }
            axes.annotate("dropped", (dot.generation, dot.row), **at)
        text = " ".join(word for word in (dot.label, "best" if dot.best else "") if word)
        if not text:
            return
        side = -1 if dot.from_above else 1  # away from the arrow that comes in
        axes.annotate(
            text,
            (dot.generation, dot.row),
            xytext=(0, side * (9.0 if dot.best else 7.0)),
            textcoords="offset points",
            ha="center",
            va="top" if dot.from_above else "bottom",
            fontsize=7,
            fontweight="bold" if dot.ancestor else "normal",
            bbox={"facecolor": PAPER, "alpha": 0.75, "linewidth": 0, "pad": 0.4},
            zorder=5,
        )

    def _legend_columns(self, width_in: float) -> int:
        return max(1, min(self._entries, int((width_in - 0.3) / _HANDLE_IN)))

    def _handles(self) -> list[Line2D]:
        met = [kind for kind in Kind if any(dot.kind is kind for dot in self._tree.dots)]
        fills = {Kind.FAILED: to_rgba(_FAILED), Kind.PENDING: to_rgba(_LOSS, 0.0)}
        handles = [_mark(MARKERS[kind], fills.get(kind, to_rgba(_LOSS, 0.5)), kind.value) for kind in met]
        if self._scores:
            shown = {"best": 0, "median": len(self._scores) // 2, "worst": -1}
            for name, score in ((name, self._scores[at]) for name, at in shown.items()):
                handles.append(_mark("o", to_rgba(_LOSS, self._shade(score)), f"loss {score:.4f} ({name})"))
            handles.append(Line2D([], [], color=INK, linewidth=2.4, label="ancestry of the best"))
        return handles


def _mark(marker: str, fill: Rgba, label: str) -> Line2D:
    rim = _FAILED if fill == to_rgba(_FAILED) else SOFT
    return Line2D([], [], linestyle="none", marker=marker, markersize=7, markerfacecolor=fill, markeredgecolor=rim, label=label)

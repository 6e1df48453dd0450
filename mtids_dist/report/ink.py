"""How every picture looks: one palette, one size, and SVG that takes its colours from the page (so dark mode works)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's colour-blind-safe palette without its yellow, which fades on white. Each stands for a CSS variable of the page.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
INK, SOFT, FAINT, PAPER = "#1c2430", "#5b6675", "#d5dae1", "#f7f8fa"
"""The page's text, secondary text, lines and ground in light mode: right as they are in a PNG, CSS variables in the page."""

_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", FAINT: "var(--line)", PAPER: "var(--card)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(PALETTE)
}
_PNG_DPI, _PNG_PIXELS = 150, 60e6
"""The resolution of a PNG, and what a large one has at most: four bytes each are held in memory while it is drawn."""

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


Paint = Callable[[Axes], None]


@dataclass(frozen=True)
class Picture:
    """One chart of the page: SVG, and a caption that says what is seen."""

    title: str
    caption: str
    svg: Markup
    wide: bool = False
    """two columns of the page, where it has them"""
    width_in: float = 0.0
    """the width that its texts were set for, where it has the page's whole width and is scrolled on a narrower one; else 0"""


def colour_of(name: str, names: Sequence[str]) -> str:
    """The colour of a task (or expert), the same in every picture."""
    return PALETTE[list(names).index(name) % len(PALETTE)]


def draw(
    title: str, caption: str, paint: Paint, *, size: tuple[float, float] = (3.9, 2.6), wide: bool = False, whole: bool = False
) -> Picture:
    """Paint one set of axes of `size` inches and keep it as inline SVG; `whole`: it gets the page's whole width."""
    with rc_context(_STYLE):
        svg = _inline_svg(_figure(paint, size), title)
    return Picture(title, caption, svg, wide, size[0] if whole else 0.0)


def draw_png(paint: Paint, *, size: tuple[float, float]) -> bytes:
    """Paint one set of axes of `size` inches and give it as a PNG on white."""
    out, dpi = BytesIO(), min(_PNG_DPI, math.sqrt(_PNG_PIXELS / (size[0] * size[1])))
    with rc_context(_STYLE):
        _figure(paint, size).savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def _figure(paint: Paint, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    paint(figure.add_subplot())
    return figure


def _inline_svg(figure: Figure, title: str) -> Markup:
    """The figure as an <svg> element: no prolog, no metadata, no namespaces, ids that differ between pictures."""
    out = StringIO()
    salt = hashlib.sha256(title.encode()).hexdigest()[:12]
    with rc_context({"svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg.split(">", 1)[0]) + ">" + svg.split(">", 1)[1]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub("|".join(_VARIABLES), lambda colour: _VARIABLES[colour.group()], svg)
    label = str(Markup.escape(title))
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))  # noqa: S704 - matplotlib escapes its texts

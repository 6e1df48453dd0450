"""The lineage as a picture: who copied whom, when, with which counts, and where the best member comes from."""

from __future__ import annotations

from mtids_dist.report.ink import Picture, draw, draw_png
from mtids_dist.report.search.lineage import Tree, lay_out
from mtids_dist.report.search.lineage_paint import TreePainter
from mtids_dist.report.search.records import OF_TASK
from mtids_dist.report.search.search import Search


def lineage_picture(search: Search) -> Picture | None:
    """The lineage over the page's whole width; None where members don't copy each other, or nothing is trained yet."""
    tree = _tree(search)
    if tree is None:
        return None
    painter = TreePainter(tree)
    return draw("Who copied whom", _caption(search, tree), painter, size=painter.size, whole=True)


def lineage_png(search: Search) -> bytes | None:
    """The same picture as a PNG that is read at its own size."""
    tree = _tree(search)
    if tree is None:
        return None
    painter = TreePainter(tree, title=f"{search.name}: who copied whom")
    return draw_png(painter, size=painter.size)


def _tree(search: Search) -> Tree | None:
    if not (search.copies and search.population.results):
        return None
    return lay_out(search.population, finished=search.finished)


def _caption(search: Search, tree: Tree) -> str:
    said = [
        "A lane is a member, a dot a generation that it trained; the stronger its blue, the lower its validation loss.",
        "An arrow leads from the donor to the member that went on as its copy; ←3 names member 3 as the donor.",
        _legend_of_counts(search),
        "A lane that breaks off was given up for a copy of another.",
    ]
    if any(first != last for first, last in tree.lanes.values()):
        said.append("Where a copy led back to an earlier generation, its member goes on in a new line of its lane.")
    return " ".join([*said, "lineage.png is the same picture."])


def _legend_of_counts(search: Search) -> str:
    known = [result.counts for result in search.population.results if result.counts]
    tasks = [name.removeprefix(f"{OF_TASK}.") for name in (known[0] if known else ()) if name.startswith(f"{OF_TASK}.")]
    order = f", in the order {', '.join(tasks)} where tasks differ" if len(tasks) > 1 else ""
    return f"S: shared experts, P: private experts of each task{order}; a lane's counts stand where they change."

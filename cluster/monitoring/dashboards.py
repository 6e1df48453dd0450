"""Writes the Grafana dashboards: python cluster/monitoring/dashboards.py [FOLDER] (grafana/dashboards by default)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableOption, VariableRefresh

from mtids_dist.observe import Series, series

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
FOLDER = Path(__file__).parent / "grafana" / "dashboards"
COLUMNS, HEIGHT = 24, 8


@dataclass(frozen=True)
class Curves:
    """One query of a panel; `legend` is Grafana's, with a label's name in double braces."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Plot:
    """A panel of curves over time.

    :param unit: Grafana's name of it.
    """

    title: str
    meaning: str
    curves: Sequence[Curves]
    unit: str = "none"
    low: float | None = None
    high: float | None = None


def of(what: Series, legend: str | None = None) -> Curves:
    """The chosen runs' values of a series of ours, told apart by its labels."""
    labels = " ".join(f"{{{{{label}}}}}" for label in what.labels) or what.short
    return Curves(f'{what.exported}{{run=~"$run"}}', legend or f"{labels} ({{{{run}}}})")


def plot(what: Series, title: str, *, unit: str = "none", low: float | None = None, high: float | None = None) -> Plot:
    """A panel of one series."""
    return Plot(title, what.meaning, [of(what)], unit, low, high)


RULE = '{run=~"$run"}'
LEARNING = (
    plot(series.LOSS, "Loss"),
    plot(series.VALIDATION_LOSS, "Validation loss"),
    plot(series.TASK_WEIGHT, "Task weights", low=0),
    plot(series.GRADIENT_COSINE, "Cosines between the tasks' gradients", low=-1, high=1),
)
ROUTING = (
    plot(series.BRANCH_USE, "Use of branches", unit="percentunit", low=0, high=1),
    plot(series.EXPERT_USE, "Use of experts", unit="percentunit", low=0, high=1),
    Plot(
        "Use of experts, of a fair share",
        "1 where all experts of a task are used alike.",
        [Curves(f"mtids:expert_use:of_fair_share{RULE}", "{{task}} {{branch}} {{expert}} ({{run}})")],
        low=0,
    ),
    Plot(
        "Weight of tasks, of their mean",
        "1 where all tasks have the same weight; ten minutes' means.",
        [Curves(f"mtids:task_weight:of_mean{RULE}", "{{task}} ({{run}})")],
        low=0,
    ),
)
SPEED = (
    plot(series.SAMPLES_PER_SECOND, "Crops a second", low=0),
    Plot(
        "Waiting for data",
        series.DATA_WAIT_RATIO.meaning,
        [
            of(series.DATA_WAIT_RATIO, "{{run}}"),
            Curves(f"mtids:data_wait_ratio:avg10m{RULE}", "{{run}}, ten minutes' mean"),
        ],
        unit="percentunit",
        low=0,
        high=1,
    ),
    Plot("Steps and epochs", "How far training has come.", [of(series.STEP), of(series.EPOCH)], low=0),
    plot(series.LEARNING_RATE, "Learning rate", low=0),
)
SEARCH = (
    Plot(
        "Generations",
        "The furthest generation, and generations trained over all members.",
        [of(series.SEARCH_GENERATION), of(series.SEARCH_RESULTS)],
        low=0,
    ),
    plot(series.SEARCH_BEST_SCORE, "Best score"),
    plot(series.SEARCH_MEMBERS_FAILED, "Failures", low=0),
    Plot(
        "Since the last result",
        "Beside the longest time that a member took for a generation.",
        [
            Curves(f'time() - {series.SEARCH_LAST_RESULT.exported}{{run=~"$run"}}', "since the last ({{run}})"),
            of(series.SEARCH_GENERATION_SECONDS, "longest generation ({{run}})"),
        ],
        unit="s",
        low=0,
    ),
)
PREPARE = (
    Plot(
        "Node rows",
        "What has become of the rows of the node table.",
        [of(series.CROPS_PREPARED), of(series.CROPS_REJECTED), of(series.NODE_ROWS)],
        low=0,
    ),
    Plot(
        "Rejected",
        "Share of the rows done so far; rejected.parquet in the store says why.",
        [
            Curves(
                f"{series.CROPS_REJECTED.exported}{RULE} / "
                f"({series.CROPS_PREPARED.exported}{RULE} + {series.CROPS_REJECTED.exported}{RULE})",
                "{{run}}",
            )
        ],
        unit="percentunit",
        low=0,
        high=1,
    ),
)
CLUSTER = (
    Plot(
        "CPUs",
        "Use of each node's CPUs, in percent.",
        [Curves("ray_node_cpu_utilization", "{{ip}}")],
        unit="percent",
        low=0,
        high=100,
    ),
    Plot(
        "GPUs",
        "Use of each GPU, in percent; empty without GPUs.",
        [Curves("ray_node_gpus_utilization", "{{ip}} {{GpuIndex}}")],
        unit="percent",
        low=0,
        high=100,
    ),
    Plot("Memory", "Used memory of each node.", [Curves("ray_node_mem_used", "{{ip}}")], unit="bytes", low=0),
    Plot(
        "Object store",
        "Bytes in Ray's object store, over all nodes.",
        [Curves("sum by (Location) (ray_object_store_memory)", "{{Location}}")],
        unit="bytes",
        low=0,
    ),
)


def build(title: str, uid: str, chooser: Series, rows: Mapping[str, Sequence[Plot]]) -> str:
    """A dashboard as JSON text; the runs to choose from are those that `chooser` has."""
    dashboard = Dashboard(title).uid(uid).tags(["mtids-dist"]).refresh("15s").time("now-3h", "now").timezone("browser")
    dashboard.tooltip(DashboardCursorSync.CROSSHAIR)
    dashboard.with_variable(DatasourceVariable("datasource").label("data source").type("prometheus"))
    runs = QueryVariable("run").label("run").datasource(SOURCE).query(f"label_values({chooser.exported}, run)")
    runs.multi(True).include_all(True).current(VariableOption(text="All", value="$__all", selected=True))
    dashboard.with_variable(runs.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED))
    for name, plots in rows.items():
        dashboard.with_row(Row(name))
        for shown in plots:
            dashboard.with_panel(_panel(shown))
    return JSONEncoder(sort_keys=True, indent=1).encode(dashboard.build()) + "\n"


def _panel(shown: Plot) -> Panel:
    panel = Panel().title(shown.title).description(shown.meaning).datasource(SOURCE).unit(shown.unit)
    panel = panel.span(COLUMNS // 4).height(HEIGHT)
    if shown.low is not None:
        panel = panel.min(shown.low)
    if shown.high is not None:
        panel = panel.max(shown.high)
    for place, curves in enumerate(shown.curves):
        panel = panel.with_target(Dataquery().expr(curves.expression).legend_format(curves.legend).ref_id("ABC"[place]))
    return panel


def dashboards() -> dict[str, str]:
    """File name -> JSON text."""
    learning = {"Learning": LEARNING, "Routing": ROUTING, "Speed": SPEED, "The cluster": CLUSTER}
    return {
        "mtids-train.json": build("mtids-dist: training", "mtids-train", series.STEP, learning),
        "mtids-tune.json": build(
            "mtids-dist: search", "mtids-tune", series.SEARCH_RESULTS, {"Search": SEARCH, "The cluster": CLUSTER}
        ),
        "mtids-prepare.json": build(
            "mtids-dist: prepare", "mtids-prepare", series.NODE_ROWS, {"Crops": PREPARE, "The cluster": CLUSTER}
        ),
    }


def main(folder: Path = FOLDER) -> None:
    """Writes all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in dashboards().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""The PromQL of dashboards and rules, and the names in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import ray
import yaml

MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"
DASHBOARDS, RULES = MONITORING / "grafana" / "dashboards", MONITORING / "rules" / "mtids.yml"
LABEL_VALUES = re.compile(r"label_values\((?P<name>\w+), (?P<label>\w+)\)")


def dashboards() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.iterdir())}


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    """(expression, legend) of every panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector in an expression, which is parsed for it; ValueError where it is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def names(expression: str) -> set[str]:
    return {selector.name for selector in selectors(expression)}


def recorded() -> dict[str, str]:
    """Name -> expression of every recording rule."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def of_ray() -> set[str]:
    """Series that Ray's own dashboards show."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    return set(re.findall(r"\bray_\w+", "".join(path.read_text() for path in folder.glob("*.py"))))

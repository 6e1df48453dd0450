"""The files of cluster/monitoring: every expression is PromQL over series that exist, rules do what their tests say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from monitoring.expressions import (
    DASHBOARDS,
    LABEL_VALUES,
    MONITORING,
    RULES,
    dashboards,
    names,
    of_ray,
    queries,
    recorded,
    rules,
    selectors,
)

from mtids_dist.observe import SERIES, series_table

OURS = {series.exported: {"run", *series.labels} for series in SERIES}
DOCS = Path(__file__).parents[2] / "docs" / "monitoring.md"
RAYS_LABELS = {"ip", "GpuIndex", "Location"}
"""Of Ray's own series, seen on a real node."""
FROM_ALERTS = {"task", "branch", "expert", "run"}


def expressions() -> list[str]:
    shown = [expression for dashboard in dashboards().values() for expression, _ in queries(dashboard)]
    return [*shown, *(rule["expr"] for rule in rules())]


def labels_of(expression: str) -> set[str]:
    """Labels that a legend over this expression can name: its series', rules unfolded."""
    found: set[str] = set()
    for name in names(expression):
        found |= OURS.get(name) or (labels_of(recorded()[name]) if name in recorded() else RAYS_LABELS)
    return found


def test_dashboards_are_what_the_code_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(MONITORING / "dashboards.py"), str(tmp_path)], check=True, timeout=120)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in DASHBOARDS.iterdir()
    }, "run python cluster/monitoring/dashboards.py"


def test_there_is_promql_to_look_at() -> None:
    assert len(expressions()) > 30
    with pytest.raises(ValueError, match="parenthesis"):
        names("sum by (run (ray_mtids_loss)")


@pytest.mark.parametrize("expression", expressions())
def test_every_series_in_an_expression_is_exported(expression: str) -> None:
    found = names(expression)
    assert found, "an expression without a series shows nothing"
    unknown = found - OURS.keys() - recorded().keys() - of_ray()
    assert not unknown
    for selector in selectors(expression):
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= labels_of(selector.name), "a matcher on a label that the series does not have matches nothing"


def test_ours_are_not_mistaken_for_rays() -> None:
    assert not any(name.startswith("ray_mtids") for name in of_ray())
    assert {"ray_node_cpu_utilization", "ray_object_store_memory"} <= of_ray()


def test_every_series_of_ours_is_shown_and_can_be_chosen_by_run() -> None:
    shown = {name for dashboard in dashboards().values() for expression, _ in queries(dashboard) for name in names(expression)}
    for rule in recorded().keys() & shown:
        shown |= names(recorded()[rule])
    assert OURS.keys() <= shown
    assert recorded().keys() - {"mtids:loss:avg10m"} <= shown, "that one is for its alert"
    for dashboard in dashboards().values():
        (run,) = [variable for variable in dashboard["templating"]["list"] if variable["name"] == "run"]
        chosen = LABEL_VALUES.fullmatch(run["query"])
        assert chosen is not None
        assert chosen["name"] in OURS
        assert chosen["label"] == "run"


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_legends_name_labels_that_are_there(name: str) -> None:
    for expression, legend in queries(dashboards()[name]):
        assert set(re.findall(r"{{(\w+)}}", legend)) <= labels_of(expression), (expression, legend)


def test_alerts_have_a_summary_a_test_and_a_paragraph_in_the_docs() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    tests = yaml.safe_load((MONITORING / "rules" / "mtids.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    assert {rule["alert"] for rule in alerts} == {
        "MtidsWorkersStarve", "MtidsLossDiverges", "MtidsTaskSilenced", "MtidsExpertDead", "MtidsGenerationStuck",
    }  # fmt: skip
    for rule in alerts:
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert "run" in named
        assert named <= FROM_ALERTS & labels_of(rule["expr"])
        fires = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]]
        assert {True, False} <= set(fires), f"{rule['alert']} is tested where it fires and where it does not"
        assert f"### {rule['alert']}" in DOCS.read_text()


def test_docs_have_the_table_of_the_code() -> None:
    assert series_table() in DOCS.read_text()


@pytest.fixture
def promtool() -> str:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not here (Debian: apt-get install prometheus)")
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", str(RULES)),
        ("test", "rules", str(MONITORING / "rules" / "mtids.test.yml")),
        ("check", "config", str(MONITORING / "prometheus.yml")),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_promtool_agrees(promtool: str, words: tuple[str, ...]) -> None:
    done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@pytest.mark.parametrize("broken", [False, True])
def test_promtool_agrees_with_the_discovery_of_pods(promtool: str, broken: bool, tmp_path: Path) -> None:
    """Debian's is built without Kubernetes: there all but the discovery itself is checked."""
    text = (MONITORING / "prometheus-kubernetes.yml").read_text()
    text = text.replace("action: keep", "action: kept") if broken else text
    (tmp_path / "rules").mkdir()
    shutil.copy(RULES, tmp_path / "rules")
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    command = [promtool, "check", "config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "kubernetes_sd_configs not found" in done.stderr:
        tree = yaml.safe_load(text)
        del tree["scrape_configs"][0]["kubernetes_sd_configs"]
        path.write_text(yaml.safe_dump(tree))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) == broken, done.stdout + done.stderr


def test_promtool_sees_a_rule_that_does_something_else(promtool: str, tmp_path: Path) -> None:
    """Otherwise its tests could be of nothing: each threshold moved, the tests must fail."""
    text, tests = RULES.read_text(), (MONITORING / "rules" / "mtids.test.yml").read_text()
    (tmp_path / "mtids.test.yml").write_text(tests)
    changes = {
        "avg10m > 0.3": "avg10m > 0.6",
        "+ 0.1": "- 0.1",
        "of_mean < 0.01": "of_mean < 0",
        "< 0.05\n            or": "< 0\n            or",
    }
    changes |= {'{branch="private"} < 0.05': '{branch="private"} < 0', "clamp_min(3 *": "clamp_min(30 *", "> 21600": "> 99999"}
    for what, by in changes.items():
        assert what in text
        (tmp_path / "mtids.yml").write_text(text.replace(what, by))
        done = subprocess.run([promtool, "test", "rules", str(tmp_path / "mtids.test.yml")], capture_output=True, text=True)
        assert done.returncode != 0, f"{what} -> {by} went unseen"

"""A real Ray head, watched by a real Prometheus and looked at with a real browser, while it prepares, trains and searches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from monitoring.browser import Page, chromium
from monitoring.expressions import dashboards, names, queries, recorded, rules
from monitoring.servers import LOOK_EVERY_S, Head, Prometheus, get, prometheus, ray_head, wait_until
from small_series import node_row, series_uid, write_cohort, write_nodes
from tiny import make_store, write_description
from tiny_search import write_search

from mtids_dist.observe import SERIES, series
from mtids_dist.train import read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

JOB = "watched-train"
RAYS = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "instance", "job", "__name__"}
"""Labels that Ray and Prometheus put on every sample."""
PICTURES = """[...document.querySelectorAll('img, svg')].map(picture => {
    const place = picture.getBoundingClientRect();
    const drawn = picture.tagName === 'IMG' ? picture.naturalWidth : picture.querySelectorAll('path').length;
    return [picture.tagName.toLowerCase(), Math.min(place.width, place.height), drawn];
})"""


@dataclass
class Watched:
    """Everything that was done, and who has watched it."""

    head: Head
    prometheus: Prometheus
    start_s: float
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "first-run"

    def seen(self, expression: str) -> list[dict[str, Any]]:
        return self.prometheus.since(self.start_s, expression)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not here (Debian: apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("watched")
    with ray_head() as head:
        done = head.verb("dashboard", "--address", head.url, "--write", str(folder / "monitoring"))
        assert done.returncode == 0, done.stderr
        with prometheus(folder / "monitoring") as server:
            found = Watched(head, server, time.time(), folder)
            wait_until(lambda: server.now("ray_node_mem_used"), "the first scrape of the node")
            prepare(head, folder)
            train(head, folder)
            tune(head, folder)
            yield found


def prepare(head: Head, folder: Path) -> None:
    """48 nodes and one outside its scan."""
    dicom, table = write_cohort(folder / "cohort")
    lines = table.read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    write_nodes(table, [*rows, node_row(series_uid("SECRET00"), "SECRET00", 99, x_mm=900)])
    done = head.verb("prepare", str(dicom), str(table), str(folder / "first-store"), "--crop", "10", "--address", head.address)
    assert done.returncode == 0, done.stderr


def train(head: Head, folder: Path) -> None:
    """As a Ray job, the way `submit` sends it."""
    from ray.job_submission import JobSubmissionClient

    write_description(folder / "first-run.yaml", make_store(folder / "tiny-store"), epochs=8)
    JobSubmissionClient(head.url).submit_job(
        submission_id=JOB,
        entrypoint=f"{sys.executable} -m mtids_dist train {folder / 'first-run.yaml'} --track tensorboard",
        runtime_env={"env_vars": {"MTIDS_DIST_ADDRESS": "auto"}},
        metadata={"mtids_dist.verb": "train", "mtids_dist.run": str(folder / "first-run")},
    )
    over = wait_until(lambda: (job := head.ask(f"/api/jobs/{JOB}"))["status"] in ("SUCCEEDED", "FAILED") and job, "the job")
    assert over["status"] == "SUCCEEDED", head.ask(f"/api/jobs/{JOB}/logs")["logs"]


def tune(head: Head, folder: Path) -> None:
    """Two members, of which one fails at first."""
    space = {"model.shared_experts": [1, 2], "train.optimizer.learning_rate": {"low": 1e-3, "high": 1e30, "log": True}}
    rates = [{"train.optimizer.learning_rate": rate, "model.shared_experts": 1} for rate in (1e30, 2e-3)]
    how = {"epochs": 3, "members": 2, "space": space, "initial": rates, "resample": 0.0, "quantile": 0.5}
    write_search(folder / "first-search.yaml", folder / "tiny-store", **how)
    done = head.verb("tune", str(folder / "first-search.yaml"), "--address", head.address)
    assert done.returncode == 0, done.stdout + done.stderr


def shown() -> list[str]:
    return sorted({expression for dashboard in dashboards().values() for expression, _ in queries(dashboard)})


@pytest.mark.parametrize("expression", [e for e in shown() if "gpus" not in e])
def test_prometheus_answers_every_query_of_the_dashboards(watched: Watched, expression: str) -> None:
    found = watched.seen(expression.replace("$run", ".*"))
    assert sum(len(one["values"]) for one in found) > 0
    if names(expression) & {one.exported for one in SERIES} or names(expression) & recorded().keys():
        assert {one["metric"]["run"] for one in found} <= {"first-run", "first-store", "first-search"}


def test_every_rule_can_be_evaluated(watched: Watched) -> None:
    groups = watched.prometheus.rules()
    found = {rule["name"]: (rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}
    assert found == {rule.get("record") or rule["alert"]: ("ok", None) for rule in rules()}


def test_what_prometheus_saw_is_what_the_run_wrote(watched: Watched) -> None:
    lines = list(read_lines(watched.run / "metrics.jsonl"))
    written = {task: {line["loss"][task] for line in lines if line["kind"] == "validation"} for task in ("bright", "upper")}
    for one in watched.seen(series.VALIDATION_LOSS.exported):
        values = {float(value) for _, value in one["values"]}
        assert values <= written[one["metric"]["task"]]
    (rejected,) = [[value for _, value in one["values"]] for one in watched.seen(series.CROPS_REJECTED.exported)]
    assert rejected[-1] == "1"
    assert set(rejected) <= {"0", "1"}, "a look may come before the refusal"
    assert "1" in {value for one in watched.seen(series.SEARCH_MEMBERS_FAILED.exported) for _, value in one["values"]}
    pairs = [one["metric"]["pair"] for one in watched.seen(series.GRADIENT_COSINE.exported)]
    assert pairs == ["bright/upper"]
    experts = watched.seen(series.EXPERT_USE.exported)
    assert len(experts) == 2 * 3, "two tasks, two shared experts and one of its own"


def test_gauges_vanish_with_the_work(watched: Watched) -> None:
    wait_until(lambda: not watched.prometheus.now('{__name__=~"ray_mtids_.*"}'), "gauges of what is over to vanish")


KEEPER = """
import sys, time
import ray
from mtids_dist.observe import series
from mtids_dist.observe.gauges import Gauges
from mtids_dist.observe.samples import Sample

ray.init(sys.argv[1], log_to_driver=False)
with Gauges("kept") as gauges:
    gauges.show([Sample(series.STEP, 7)], 7)
    time.sleep(float(sys.argv[2]))
    print("still there?", flush=True)
    input()
print("gone?", flush=True)
input()
"""


def test_a_gauge_that_was_set_once_is_kept_alive_until_the_block_ends(watched: Watched) -> None:
    """Ray forgets one that was not set again for two of its reports; the process itself goes on after the block."""

    def there() -> bool:
        return b'run="kept"' in get(watched.head.metrics)

    command = [sys.executable, "-c", KEEPER, watched.head.address, str(4 * LOOK_EVERY_S)]
    with subprocess.Popen(command, env=watched.head.environment, stdin=PIPE, stdout=PIPE, text=True) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        assert driver.stdout.readline() == "still there?\n"
        wait_until(there, "the gauge")
        print("go on", file=driver.stdin, flush=True)
        assert driver.stdout.readline() == "gone?\n"
        wait_until(lambda: not there(), "the gauge to vanish")
        print("go on", file=driver.stdin, flush=True)


def test_labels_are_few_and_name_nobody(watched: Watched) -> None:
    known = {one.exported: {"run", *one.labels} for one in SERIES}
    found = watched.prometheus.series('{__name__=~"ray_mtids_.*"}')
    assert {labels["__name__"] for labels in found} == known.keys()
    for labels in found:
        assert labels.keys() - RAYS == known[labels["__name__"]]
    text = json.dumps(found)
    for secret in ("SECRET", "Doe", series_uid("SECRET00"), str(watched.folder)):
        assert secret not in text


def test_train_and_data_know_our_runs_by_name(watched: Watched) -> None:
    (run,) = watched.head.ask("/api/train/v2/runs/v1")["train_runs"]
    assert (run["name"], run["status"]) == ("first-run", "FINISHED")
    assert list((watched.run / "checkpoints").glob("checkpoint_*/portable/state.json")), "they lie where they did"
    jobs = [job["job_id"] for job in watched.head.ask("/api/jobs/")]
    datasets = [one["dataset"] for job in jobs for one in watched.head.ask(f"/api/data/datasets/{job}")["datasets"]]
    for name in ("first-store-headers", "first-store-crops", "first-run", "first-search-generation-3-member-1"):
        assert any(dataset.startswith(f"{name}_") for dataset in datasets), (name, datasets)


def test_dashboard_prints_where_to_look(watched: Watched) -> None:
    done = watched.head.verb("dashboard", str(watched.run), "--address", watched.head.url, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"]["job_page"] == f"{watched.head.url}/#/jobs/{JOB}"
    assert (found["run"]["train"], found["run"]["state"]) == ({"first-run": "FINISHED"}, "SUCCEEDED")
    assert found["run"]["datasets"][0].startswith("first-run_")
    nobody = watched.head.verb("dashboard", str(watched.folder / "other"), "--address", watched.head.url)
    assert (nobody.returncode, len(nobody.stderr.splitlines())) == (2, 1)
    assert "no job of this run" in nobody.stderr


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not here (Debian: apt-get install chromium)")
    with chromium(tmp_path / "browser") as opened:
        yield opened


def test_rays_dashboard_shows_the_job_and_its_dataset(watched: Watched, page: Page, tmp_path: Path) -> None:
    page.open(f"{watched.head.url}/#/jobs")
    page.shows(JOB)
    print(page.screenshot(tmp_path / "jobs.png"))
    page.open(f"{watched.head.url}/#/jobs/{JOB}")
    page.shows("SUCCEEDED")
    page.click("Ray Data Overview")
    page.shows("first-run_")
    assert page.screenshot(tmp_path / "job.png").stat().st_size > 20_000


def test_the_report_page_shows_its_pictures(watched: Watched, page: Page, tmp_path: Path) -> None:
    assert watched.head.verb("evaluate", str(watched.run), str(watched.folder / "tiny-store")).returncode == 0
    assert watched.head.verb("report", str(watched.run)).returncode == 0
    page.open((watched.run / "report.html").as_uri())
    pictures = page.says(PICTURES)
    print(page.screenshot(tmp_path / "report.png"), pictures)
    assert {"img", "svg"} == {kind for kind, _, _ in pictures}
    assert len(pictures) >= 10
    for kind, smallest_side, drawn in pictures:
        assert smallest_side > 50, kind
        assert drawn > 0, f"an empty {kind}"

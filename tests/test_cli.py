"""The command line's manners: one line and exit code 2 for what the user got wrong, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_store, write_description

CONFIGS = Path(__file__).parents[1] / "configs"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mtids_dist", *words], capture_output=True, text=True, timeout=120)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_no_such_verb_option_or_argument() -> None:
    refused(run("trian", "x.yaml"), "trian")
    refused(run("train"), "RUN.yaml")
    refused(run("phantom", "out", "--patients", "many"), "--patients", "integer")


def test_missing_files_and_misspelt_keys(tmp_path: Path) -> None:
    refused(run("train", str(tmp_path / "no.yaml")), "no such run description")
    refused(run("train", str(CONFIGS / "demo.yaml"), "--set", "trian.epochs=2"), "unknown key trian", "train")
    refused(run("report", str(tmp_path / "nothing")), "nothing")
    refused(run("inspect", str(tmp_path / "no-store")), "no such store")
    refused(run("dataset", "lidc", str(tmp_path / "s")), "lidc-readings")


@pytest.mark.slow
def test_stores_that_do_not_fit_are_refused_before_training(tmp_path: Path) -> None:
    description = write_description(tmp_path / "tiny.yaml", make_store(tmp_path / "store"))
    refused(run("train", str(description), "--set", f"data.store={tmp_path / 'gone'}"), "no such store")
    refused(run("train", str(description), "--set", "data.crop=32"), "crop_shape", "8x8x8", "32x32x32")
    refused(run("train", str(description), "--set", "tasks.bright.column=birght"), "birght", "did you mean bright")
    refused(run("train", str(description), "--set", "data.fold=9"), "no such fold", "0 to 2")
    refused(run("train", str(description), "--set", "data.batch_size=4096"), "data.batch_size")
    refused(run("evaluate", str(tmp_path / "store"), str(tmp_path / "store")), "no run folder")
    assert not (tmp_path / "tiny").exists(), "nothing is left behind"


def test_schema_and_resolved_description() -> None:
    schema = json.loads(run("config", "--schema").stdout)
    assert {"tasks", "data", "model", "balance", "train", "run"} <= set(schema["properties"])
    resolved = run("config", str(CONFIGS / "mtids.yaml")).stdout
    assert "shared_experts: 4" in resolved
    assert "ParamCount" in resolved


@pytest.mark.parametrize(
    "verb",
    [
        "phantom",
        "prepare",
        "inspect",
        "dataset",
        "train",
        "tune",
        "evaluate",
        "report",
        "config",
        "submit",
        "manifest",
        "dashboard",
    ],
)
def test_help_has_an_example(verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"mtids-dist {verb}" in done.stdout.replace("\n", " ")
    assert "Example" in done.stdout

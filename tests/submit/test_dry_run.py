"""A dry run prints exactly what would be sent, whatever the order of options, and contacts nobody."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

from command_line import CommandLine

from mtids_dist import __version__

NOBODY = "http://127.0.0.1:9"


def test_it_prints_what_would_be_sent(cli: CommandLine, work: Path) -> None:
    (work / "scan.dcm").touch()
    words = ["submit", "train", "run.yaml", "--set", "train.epochs=2", "--address", NOBODY, "--dry-run", "--env", "A=b=c"]
    found = json.loads(cli(*words).out)
    content = found["metadata"]["mtids_dist.content"]
    assert found == {
        "submission_id": f"train-first-{content[:8]}",
        "entrypoint": "python -m mtids_dist train run.yaml --set train.epochs=2",
        "metadata": {
            "mtids_dist.verb": "train",
            "mtids_dist.version": __version__,
            "mtids_dist.content": content,
            "mtids_dist.run": "/shared/runs/first",
        },
        "runtime_env": {
            "env_vars": {"MTIDS_DIST_ADDRESS": "auto", "RAY_JOB_STOP_WAIT_TIME_S": "120", "A": "b=c"},
            "working_dir": str(work),
        },
        "files": [{"path": "run.yaml", "bytes": (work / "run.yaml").stat().st_size}],
        "bytes": (work / "run.yaml").stat().st_size,
        "left_out": {"patients' images": ["scan.dcm"]},
    }


def test_options_of_submit_stand_anywhere(cli: CommandLine, work: Path) -> None:
    parts = [["train", "run.yaml", "--set", "seed=3"], ["--dry-run"], ["--id", "mine"], ["--address", NOBODY], ["--env", "A=1"]]
    answers = {cli("submit", *(word for part in order for word in part)).out for order in permutations(parts)}
    assert len(answers) == 1
    assert json.loads(answers.pop())["submission_id"] == "mine"


def test_dashes_end_the_options_of_submit(cli: CommandLine, work: Path) -> None:
    found = json.loads(cli("submit", "--dry-run", "exec", "--", "tool", "--dry-run", "--id", "x", "--", "y z").out)
    assert found["entrypoint"] == "tool --dry-run --id x -- 'y z'"
    assert found["submission_id"].startswith("exec-tool-")


def test_an_id_is_made_of_what_runs_and_of_nothing_else(cli: CommandLine, work: Path) -> None:
    def derived(*words: str) -> str:
        return str(json.loads(cli("submit", "train", "run.yaml", "--dry-run", *words).out)["submission_id"])

    first = derived()
    assert derived() == derived("--address", NOBODY) == first
    others = [derived("--set", "seed=1"), derived("--env", "A=1"), derived("--send-package")]
    (work / "run.yaml").write_text((work / "run.yaml").read_text() + "seed: 2\n")
    assert len({first, *others, derived()}) == 5


def test_a_package_that_is_sent_is_listed(cli: CommandLine, work: Path) -> None:
    found = json.loads(cli("submit", "exec", "--dry-run", "--send-package", "--", "true").out)
    assert "cli/app.py" in [file["path"] for file in found["package_files"]]
    assert Path(found["runtime_env"]["py_modules"][0]).name == "mtids_dist"

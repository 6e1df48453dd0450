"""Fixtures of the submission tests. What starts a cluster is in `local_cluster.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command_line import CommandLine

OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "MTIDS_DIST_ADDRESS")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line, far from any cluster or token of this machine's."""
    for name in OVERRIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one run description."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump({"run": "/shared/runs/first", "data": {"store": "/shared/store"}}))
    monkeypatch.chdir(folder)
    return folder

"""The search folder: what lies where."""

from __future__ import annotations

from pathlib import Path

from mtids_dist.train import RunFolder


class SearchFolder(RunFolder):
    """One search = one folder, with a description and versions as a run has them.

    generations/<generation>/<member>/   one member's training: metrics, and the states that are still needed
    best/                                the winner, an ordinary run folder
    """

    @property
    def history(self) -> Path:
        """What happened, line by line."""
        return self.path / "history.jsonl"

    @property
    def lineage(self) -> Path:
        """Who copied whom, and what a change of expert counts did."""
        return self.path / "lineage.json"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files, while it runs."""
        return self.path / "tune"

    @property
    def best(self) -> RunFolder:
        """The winner."""
        return RunFolder(self.path / "best")

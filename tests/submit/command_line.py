"""The command line in this process: what it prints, and what it exits with."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from mtids_dist.cli import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class CommandLine:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["mtids-dist", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, captured.out, captured.err)

    def refused(self, *words: str) -> str:
        """The one line of a refusal."""
        done = self(*words)
        assert done.code == 2, done
        assert done.out == ""
        assert len(done.err.strip().splitlines()) == 1, done.err
        return done.err.strip()

"""A member of the population as Ray Tune sees it: a light process that keeps a pointer and lets hosts do the work.

Tune pauses, copies and stops a trial only between steps, so never while a host trains for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from mtids_dist.tune.assignment import Assignment
from mtids_dist.tune.history import Start

MEMBER = "member"
"""The key of a member's number in its trial's config; the other keys are its settings."""
POINTER = "pointer.json"
LINE = "line"
"""The history's line in what a step returns, as JSON."""
RESULT = "result.json"
"""In the folder of a generation that is over."""


class Member(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """One step is one generation. A Tune checkpoint is a pointer to the state that the generation left."""

    def setup(
        self, config: Mapping[str, Any], *, home: Path, starts: Mapping[int, Start], hosts: ActorHandle, keeps_on: bool
    ) -> None:
        """Tune's own.

        :param home: the search folder.
        :param starts: what each member goes on with unless Tune has a pointer for it.
        :param hosts: the `HostPool`.
        :param keeps_on: whether a member whose training failed may go on: it can copy another one.
        """
        self._home, self._starts, self._hosts, self._keeps_on = home, starts, hosts, keeps_on
        self._take_up(config)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """This process goes on as another member."""
        self._take_up(new_config)
        return True

    def _take_up(self, config: Mapping[str, Any]) -> None:
        self._member = config[MEMBER]
        self._settings = {key: value for key, value in config.items() if key != MEMBER}
        start = self._starts[self._member]
        self._stands_on, self._replay = start.state, list(start.replay)
        self._generation, self._over = start.generation, start.over

    def step(self) -> dict[str, Any]:
        """Trains the next generation on the next free hosts, or tells again what is known of it."""
        line = self._replay.pop(0) if self._replay else self._train()
        self._generation = line["generation"]
        failed = line["score"] is None
        if not failed:
            self._stands_on, self._settings = line, line["settings"]
        return {
            "generation": line["generation"],
            "score": math.inf if failed else line["score"],
            LINE: json.dumps(line),  # Tune would take a mapping apart
            "done": (failed and not self._keeps_on) or (self._over and not self._replay),
        }

    def _train(self) -> dict[str, Any]:
        assignment = Assignment(
            generation=self._generation + 1, member=self._member, settings=self._settings, start=self._stands_on
        )
        while (self._home / assignment.name / RESULT).exists():
            assignment = replace(assignment, again=assignment.again + 1)
        line: dict[str, Any] = ray.get(self._hosts.train.remote(assignment))
        (self._home / assignment.name).mkdir(parents=True, exist_ok=True)
        (self._home / assignment.name / RESULT).write_text(json.dumps(line, indent=1) + "\n")
        return line

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the pointer."""
        pointer = {"generation": self._generation, "stands_on": self._stands_on}
        Path(checkpoint_dir, POINTER).write_text(json.dumps(pointer))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Takes up a pointer: this member's own, or that of the one it copies."""
        pointer = json.loads(Path(checkpoint, POINTER).read_text())
        self._generation, self._stands_on, self._replay = pointer["generation"], pointer["stands_on"], []

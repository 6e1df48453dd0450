"""A search folder as a real search would leave it: the room that searches writes it, only the training is made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mtids_dist.config import RunConfig, parse_run
from mtids_dist.tune import History, Range
from mtids_dist.tune.assignment import Assignment
from mtids_dist.tune.config import is_count
from mtids_dist.tune.lineage import write_lineage
from mtids_dist.tune.space import counts_of, first_points, job_at

SEED = 3
SPACE: dict[str, Any] = {
    "model.shared_experts": [1, 2, 3, 4, 6],
    "model.task_experts": [1, 2, 3],
    "train.optimizer.learning_rate": {"low": 5e-4, "high": 1e-2, "log": True},
    "balance.options.tau": {"low": 0.0, "high": 1.0},
}
TASK_WISE: dict[str, Any] = {
    "model.shared_experts": [1, 2, 3, 4],
    "model.task_experts.joint": [1, 2, 3],
    "model.task_experts.region": [1, 2, 3],
    "train.optimizer.learning_rate": {"low": 5e-4, "high": 1e-2, "log": True},
    "balance.method": ["ddgb", "equal", "upgrad"],
}
ERROR = "Loss of joint is not finite at step 12"


@dataclass
class FakeSearch:
    """A population whose losses fall, with more experts and a rate near 3e-3 a little faster.

    :param trained: generations that are trained over all members before it is interrupted; None: all, and it finishes.
    :param failing: (member, generation) whose training fails.
    :param dropped: member -> the generation after which its process is lost.
    """

    folder: Path
    tune: dict[str, Any] = field(default_factory=dict)
    seed: int = SEED
    trained: int | None = None
    failing: frozenset[tuple[int, int]] = frozenset()
    dropped: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        print(f"fake search with seed {self.seed}")
        defaults = {"members": 4, "generations": 5, "space": SPACE}
        tune = {**defaults, **self.tune}
        tree = {"run": str(self.folder), "seed": self.seed, "train": {"epochs": tune["generations"]}, "tune": tune}
        self.config: RunConfig = parse_run(tree, where="fake search")
        self.folder.mkdir(parents=True)
        (self.folder / "run.yaml").write_text(yaml.safe_dump(self.config.resolved(), sort_keys=False))
        (self.folder / "versions.json").write_text(json.dumps({"python": "3.11", "ray": "2.60"}))
        self.history = History.open(self.folder / "history.jsonl")
        self._rng = np.random.default_rng(self.seed)
        self._clock = 1.76e9
        self._stands: dict[int, dict[str, Any] | None] = {}
        self._settings: dict[int, dict[str, Any]] = {}
        self.reached: dict[int, int] = {}

    @property
    def search(self) -> Any:
        return self.config.tune

    def begin(self) -> None:
        number = self.search.budget if self.search.scheduler == "asha" else self.search.members
        for member, point in enumerate(first_points(self.config.job(), self.search, number=number)):
            self.history.add({"event": "member", "member": member, "settings": point})
            self._settings[member], self._stands[member], self.reached[member] = point, None, 0
        self.history.add({"event": "started", "trained": 0, "hosts": 2, "resources": {"CPU": 0.5}, "seed": self.seed})

    def over(self) -> bool:
        budget = self.search.budget if self.trained is None else self.trained
        return len(self.history.results) >= budget

    def train(self, member: int, generation: int) -> dict[str, Any]:
        """One generation of a member, on top of what it stands on."""
        start, settings, job = self._stands[member], self._settings[member], self.config.job()
        assignment = Assignment(generation=generation, member=member, settings=settings, start=start)
        while self.history.has(assignment.name):
            assignment = Assignment(
                generation=generation, member=member, settings=settings, start=start, again=assignment.again + 1
            )
        self.reached[member] = generation
        self._clock += float(self._rng.uniform(5, 9))
        if (member, generation) in self.failing:
            self.history.add(assignment.failure(ERROR))
            return self.history.results[-1]
        model = job_at(job, settings).model
        counts = counts_of(model, job)
        changed = assignment.copies and start is not None and counts != start["counts"]
        line = assignment.result(
            score=self._loss(start, settings, counts),
            counts=counts,
            parameters=model.num_params(job.num_classes).total,
            state=f"{assignment.name}/state",
            loss_before=start["score"] if assignment.copies and start else None,
            loss_after=start["score"] * float(self._rng.normal(1.0005, 0.003)) if assignment.copies and start else None,
            change=float(self._rng.uniform(0, 0.02)) if changed else None,
            refused="shared_experts 4 -> 3: change 0.061 above 0.05" if changed and self._rng.random() < 0.2 else None,
            step=48 * generation,
            began_s=self._clock,
            first_step_s=self._clock + 0.4,
            ended_s=self._clock + 5.0,
            error=None,
        )
        self.history.add(line)
        self._stands[member] = self.history.results[-1]
        return self.history.results[-1]

    def _loss(self, start: dict[str, Any] | None, settings: dict[str, Any], counts: dict[str, int]) -> float:
        before = 1.0 if start is None else start["score"]
        off = abs(np.log(settings["train.optimizer.learning_rate"] / 3e-3))
        fall = 0.10 + 0.02 * np.log(sum(counts.values())) - 0.05 * off + self._rng.normal(0, 0.02)
        return float(0.2 + (before - 0.2) * np.exp(-max(fall, -0.05)))

    def copy(self, member: int, donor: int) -> dict[str, Any]:
        """A decision to copy, not written down yet."""
        stood = [r for r in self.history.results if r["member"] == donor and r["score"] is not None][-1]
        generation, self.reached[member] = self.reached[member], stood["generation"]
        self._stands[member], self._settings[member] = stood, self._mutated(stood["settings"])
        start = {key: stood[key] for key in ("member", "generation", "id")}
        settings = self._settings[member]
        return {"event": "copy", "generation": generation, "member": member, "donor": donor, "settings": settings, "start": start}

    def _mutated(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        mutated = dict(settings)
        for key, values in self.search.space.items():
            if isinstance(values, Range):
                mutated[key] = float(np.clip(settings[key] * self._rng.choice([0.8, 1.2]), values.low, values.high))
            elif not is_count(key) or self._rng.random() < 0.6:
                at = values.index(settings[key]) + int(self._rng.choice([-1, 0, 1]))
                mutated[key] = values[min(max(at, 0), len(values) - 1)]
        return mutated

    def finish(self) -> Path:
        write_lineage(self.history)
        if self.trained is None:
            best = self.history.best
            assert best is not None
            winner = {key: best[key] for key in ("member", "generation", "score", "settings", "counts")}
            pauses = [1.25] * (self.search.generations - 1) if self.search.compares_generations else []
            self.history.add({"event": "finished", "winner": winner, "pauses_s": pauses})
            (self.folder / "best").mkdir()
            (self.folder / "best" / "run.yaml").write_text("train:\n  epochs: 5\n")
        return self.folder


def make_search(folder: Path, **given: Any) -> Path:
    """A synchronous population-based search."""
    fake = FakeSearch(folder, **given)
    fake.begin()
    alive = set(range(fake.search.members))
    for generation in range(1, fake.search.generations + 1):
        for member in sorted(alive):
            if not fake.over():
                fake.train(member, generation)
        if fake.over():
            break
        for member in [m for m in alive if fake.dropped.get(m) == generation]:
            alive.remove(member)
            fake.history.add({"event": "dropped", "member": member, "generation": generation, "error": "its process was lost"})
        if generation < fake.search.generations:
            compare(fake, generation, sorted(alive))
    return fake.finish()


def compare(fake: FakeSearch, generation: int, alive: list[int]) -> None:
    """The worst copy the best; those that failed are the worst."""
    of_generation = {r["member"]: r["score"] for r in fake.history.results if r["generation"] == generation}
    order = sorted(alive, key=lambda member: of_generation[member] if of_generation[member] is not None else np.inf)
    number = max(1, int(len(order) * fake.search.quantile))
    donors = [member for member in order[:number] if of_generation[member] is not None]
    copies = [fake.copy(m, int(fake._rng.choice(donors))) for m in order[-number:]]
    fake.history.add(*copies, {"event": "closed", "generation": generation})


def make_asynchronous(folder: Path, **given: Any) -> Path:
    """An asynchronous one: each member compares itself when it has trained; a copy can fall back to earlier generations."""
    given["tune"] = {**given.get("tune", {}), "synchronous": False}
    fake = FakeSearch(folder, **given)
    fake.begin()
    busy = {member: float(fake._rng.uniform(1, 4)) for member in range(fake.search.members)}
    pace = {member: float(fake._rng.uniform(1, 4)) for member in busy}
    while busy and not fake.over():
        member = min(busy, key=busy.__getitem__)
        line = fake.train(member, fake.reached[member] + 1)
        busy[member] += pace[member]
        if line["generation"] >= fake.search.generations:
            del busy[member]
            continue
        last = {r["member"]: r for r in fake.history.results if r["score"] is not None}
        donors = [m for m in busy if m != member and m in last and last[m]["score"] < last.get(member, last[m])["score"] * 1.05]
        if donors and fake._rng.random() < fake.search.quantile:
            fake.history.add(fake.copy(member, int(fake._rng.choice(donors))))
    return fake.finish()


def make_without_copies(folder: Path, scheduler: str, **given: Any) -> Path:
    """Successive halving or random search: nobody copies."""
    fake = FakeSearch(folder, tune={"scheduler": scheduler, **given.pop("tune", {})}, **given)
    fake.begin()
    for member in range(fake.search.members + (3 if scheduler == "asha" else 0)):
        last = 0
        for last in range(1, (1 + member % 3 if scheduler == "asha" else fake.search.generations) + 1):
            if not fake.over() and fake.train(member, last)["score"] is None:
                break
        fake.history.add({"event": "stopped", "member": member, "generation": last, "error": None})
    return fake.finish()

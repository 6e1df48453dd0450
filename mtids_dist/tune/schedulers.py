"""Ray Tune's schedulers, with what a search adds: everything is written down, and what no member needs is deleted."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from mtids_dist.tune.config import Range, Scheduler, SearchConfig, is_count
from mtids_dist.tune.history import History
from mtids_dist.tune.member import LINE, MEMBER
from mtids_dist.tune.space import DRAWS, Limit

TIME, SCORE = "generation", "score"


def make_scheduler(config: SearchConfig, history: History, limit: Limit, *, seed: int) -> TrialScheduler:
    """The scheduler that the search names."""
    if config.scheduler is Scheduler.PBT:
        return Population(config, history, limit, seed=seed)
    return Halving(config, history) if config.scheduler is Scheduler.ASHA else Unscheduled(history)


class _WrittenDown(TrialScheduler):  # type: ignore[misc]  # Ray has no types
    """Writes a trial's results into the history before the scheduler decides on them."""

    history: History

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Tune's own."""
        self._write(trial, result)
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if decision == TrialScheduler.STOP:
            self._write_end("stopped", trial)
        self._tidy()
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Tune's own."""
        self._write(trial, result)
        self._write_end("stopped", trial)
        super().on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tune's own."""
        self._write_end("dropped", trial, "its process was lost")
        super().on_trial_error(tune_controller, trial)

    def _write(self, trial: Trial, result: Mapping[str, Any]) -> None:
        line = json.loads(result[LINE])
        if not self.history.has(line["id"]):  # else a result that is told again after an interruption
            self.history.add(line)
        # What was refused is not the trial's either: who copies it must not inherit it.
        trial.config.update(line["settings"])

    def _write_end(self, event: str, trial: Trial, error: str | None = None) -> None:
        generation = trial.last_result.get(TIME, 0) if trial.last_result else 0
        self.history.add({"event": event, "member": trial.config[MEMBER], "generation": generation, "error": error})

    def _tidy(self) -> None:
        home, needed = self.history.path.parent, self.history.needed_states()
        for line in self.history.results:
            if line["state"] is not None and line["state"] not in needed:
                shutil.rmtree(home / line["state"], ignore_errors=True)
                shutil.rmtree((home / line["state"]).with_name("start"), ignore_errors=True)


class Unscheduled(_WrittenDown, FIFOScheduler):  # type: ignore[misc]
    """Random search: every member trains to the end."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history


class Halving(_WrittenDown, AsyncHyperBandScheduler):  # type: ignore[misc]
    """Successive halving: at each rung the worse ones stop (Li et al., "A System for Massively Parallel Hyperparameter
    Tuning", MLSys 2020)."""

    def __init__(self, config: SearchConfig, history: History) -> None:
        super().__init__(
            time_attr=TIME,
            metric=SCORE,
            mode="min",
            max_t=config.generations,
            grace_period=1,
            reduction_factor=config.reduction_factor,
        )
        self.history = history


class Population(_WrittenDown, PopulationBasedTraining):  # type: ignore[misc]
    """Population-based training (Jaderberg et al., arXiv:1711.09846) whose copies stay inside the space and its limits."""

    def __init__(self, config: SearchConfig, history: History, limit: Limit, *, seed: int) -> None:
        super().__init__(
            time_attr=TIME,
            metric=SCORE,
            mode="min",
            perturbation_interval=1,
            hyperparam_mutations={key: _mutation(values) for key, values in config.space.items()},
            quantile_fraction=config.quantile,
            resample_probability=config.resample,
            log_config=False,
            synch=config.synchronous,
        )
        self.history, self._space, self._limit, self._seed = history, config.space, limit, seed
        self._copies: list[dict[str, Any]] = []
        self._next_perturbation_sync = history.closed + 1

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Tune's own."""
        self._write(trial, result)
        return self._compare(tune_controller, trial, result)

    def on_trial_complete(self, _tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Tune's own."""
        self._write(trial, result)
        self._tidy()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Tune's own. Where everybody waits for a member that was dropped, the others are compared without it."""
        live = [t for t in tune_controller.get_live_trials() if not t.is_finished()]
        waiting = [t for t in live if t.status == Trial.PAUSED and self._is_compared_next(t)]
        if self._synch and waiting and len(waiting) == len(live):
            self._compare(tune_controller, waiting[0], self._trial_state[waiting[0]].last_result)
        return super().choose_trial_to_run(tune_controller)

    def _is_compared_next(self, trial: Trial) -> bool:
        return bool(self._trial_state[trial].last_train_time >= self._next_perturbation_sync)

    def _compare(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Lets Tune decide who copies whom, and writes it down in one go, so that it is known whole or not at all."""
        before = self._next_perturbation_sync
        for dropped in (t for t in tune_controller.get_trials() if t.status == Trial.ERROR):
            # Tune may keep it among those that are waited for, if its process was lost while it was paused.
            state = self._trial_state[dropped]
            state.last_train_time = max(state.last_train_time, before)
        draw = len(self.history.results) if not self._synch else int(before)
        random.seed(f"{self._seed} {draw}")
        np.random.seed(np.random.SeedSequence((self._seed, draw)).generate_state(1)[0])  # what Tune's own draws come from
        decision = PopulationBasedTraining.on_trial_result(self, tune_controller, trial, result)
        closed = [{"event": "closed", "generation": int(before)}] if self._next_perturbation_sync != before else []
        if self._copies or closed:
            self.history.add(*self._copies, *closed)
            self._copies = []
        self._tidy()
        return str(decision)

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """The donor's settings, moved a step inside the space, to a network that is within the limits."""
        for _ in range(DRAWS):
            config, operations = super()._get_new_config(trial, trial_to_clone)
            settings = {key: _inside(config[key], values) for key, values in self._space.items()}
            if not self._limit(settings):
                break
        else:
            settings |= {key: trial_to_clone.config[key] for key in settings if is_count(key)}
        donor = json.loads(self._trial_state[trial_to_clone].last_result[LINE])
        self._copies.append(
            {
                "event": "copy",
                "generation": self._trial_state[trial].last_result[TIME],
                "member": trial.config[MEMBER],
                "donor": trial_to_clone.config[MEMBER],
                "settings": settings,
                "start": {"member": donor["member"], "generation": donor["generation"], "id": donor["id"]},
            }
        )
        return {**settings, MEMBER: trial.config[MEMBER]}, operations


def _mutation(values: tuple[Any, ...] | Range) -> Any:
    if not isinstance(values, Range):
        return list(values)
    return (tune.loguniform if values.log else tune.uniform)(values.low, values.high)


def _inside(value: Any, values: tuple[Any, ...] | Range) -> Any:
    """Tune multiplies numbers by 0.8 or 1.2, whatever their range."""
    return min(max(value, values.low), values.high) if isinstance(values, Range) else value

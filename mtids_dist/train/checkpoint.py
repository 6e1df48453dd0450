"""Checkpoints: DeepSpeed's own files, and beside them a portable state that any number of ranks and any ZeRO stage can take up.

checkpoint/
  deepspeed/...                  what DeepSpeed saves, one file a rank: exact for the same stage and number of ranks
  portable/weights.safetensors   fp32 weights by parameter name
  portable/moments.safetensors   the optimizer's moments, `<moment>.<parameter name>`
  portable/state.json            where the run stands, and what wrote it
  portable/balancer.pt           the balancer's state (loadable with weights_only)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtids_dist.balance import DeepSpeedHandOver
from mtids_dist.train.engine import base_optimizer
from mtids_dist.train.full_state import full_moment, full_weight, set_full_moment
from mtids_dist.train.learner import Learner

TAG = "state"
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


@dataclass
class Progress:
    """Where a run stands.

    :param step: balanced steps taken.
    :param epoch: the epoch being trained, from 0.
    :param step_in_epoch: steps of it that are done.
    :param best_score: lowest validation score so far.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_score: float | None = None

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Where the run stood that left the portable state in `folder`."""
        return cls(**_read_state(folder)["progress"])


@dataclass(frozen=True, kw_only=True)
class PortableState:
    """What any number of ranks and any ZeRO stage can go on from.

    :param weights: fp32, by parameter name.
    :param moments: {parameter name: {moment: value}}, those that the optimizer has; empty: a fresh optimizer.
    :param balancer: the balancer's state_dict; empty: a fresh balancer.
    :param written_by: (ranks, ZeRO stage) of the engine whose own files lie beside this state, if they do.
    """

    progress: Progress
    weights: Mapping[str, Tensor] = field(repr=False)
    moments: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    balancer: Mapping[str, Any] = field(repr=False)
    written_by: tuple[int, int] | None = None

    @classmethod
    def read(cls, folder: Path) -> PortableState:
        """The portable state in a checkpoint's folder."""
        portable = folder / "portable"
        state = _read_state(folder)
        moments: dict[str, dict[str, Tensor]] = {}
        for key, value in load_file(portable / "moments.safetensors").items():
            moment, name = key.split(".", 1)
            moments.setdefault(name, {})[moment] = value
        return cls(
            progress=Progress(**state["progress"]),
            weights=load_file(portable / "weights.safetensors"),
            moments=moments,
            balancer=torch.load(portable / "balancer.pt", weights_only=True),
            written_by=None if state["written_by"] is None else tuple(state["written_by"]),
        )

    def write(self, folder: Path) -> None:
        """Into a checkpoint's folder; state.json comes last, so that a folder with it is whole."""
        portable = folder / "portable"
        portable.mkdir(parents=True)
        flat = {f"{moment}.{name}": value for name, state in self.moments.items() for moment, value in state.items()}
        save_file(dict(self.weights), portable / "weights.safetensors")
        save_file(flat, portable / "moments.safetensors")
        torch.save(dict(self.balancer), portable / "balancer.pt")
        state = {"progress": asdict(self.progress), "written_by": self.written_by}
        (portable / "state.json").write_text(json.dumps(state, indent=1))


def _read_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "portable" / "state.json").read_text())
    return state


def save_checkpoint(learner: Learner, progress: Progress, folder: Path) -> None:
    """Writes this rank's part into `folder`, a folder of its own; a collective. Rank 0's part has the portable state."""
    learner.engine.save_checkpoint(str(folder / "deepspeed"), tag=TAG)
    save_portable(learner, progress, folder, written_by=_engine_kind(learner))


def save_portable(learner: Learner, progress: Progress, folder: Path, *, written_by: tuple[int, int] | None = None) -> None:
    """Writes the portable state alone into `folder`, by rank 0; a collective."""
    state = PortableState(
        progress=progress,
        weights=whole_weights(learner.model),
        moments=_whole_moments(learner),
        balancer=learner.balancer.state_dict(),
        written_by=written_by,
    )
    if dist.get_rank() == 0:
        state.write(folder)


def load_checkpoint(learner: Learner, saved: PortableState, folder: Path) -> None:
    """Takes up optimizer and balancer; a collective. The weights must have been loaded before the engine was built.

    The same stage and number of ranks read DeepSpeed's own files in `folder`; others the portable state, by parameter name.
    """
    if saved.written_by == _engine_kind(learner):
        learner.engine.load_checkpoint(str(folder / "deepspeed"), tag=TAG)
    else:
        _set_whole_moments(learner, saved.moments, saved.progress.step)
    if saved.balancer:
        learner.balancer.load_state_dict(dict(saved.balancer))


def _engine_kind(learner: Learner) -> tuple[int, int]:
    """Ranks and ZeRO stage: what DeepSpeed's own files are bound to."""
    return dist.get_world_size(), learner.engine.zero_optimization_stage()


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """fp32 weights by parameter name, whole, on the CPU, whatever the ZeRO stage; a collective."""
    weights = {}
    for name, parameter in model.named_parameters():
        whole = full_weight(parameter)
        weights[name] = _on_cpu(parameter if whole is None else whole)
    weights.update({name: _on_cpu(buffer) for name, buffer in model.named_buffers()})
    return weights


def _whole_moments(learner: Learner) -> dict[str, dict[str, Tensor]]:
    optimizer = base_optimizer(learner.engine)
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in learner.model.named_parameters():
        for moment in _moments_of(learner):
            value = full_moment(parameter, optimizer, moment)
            if value is not None:
                found.setdefault(name, {})[moment] = _on_cpu(value)
    return found


def _set_whole_moments(learner: Learner, moments: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    _make_optimizer_state(learner)
    optimizer = base_optimizer(learner.engine)
    for name, parameter in learner.model.named_parameters() if moments else ():
        for moment in _moments_of(learner):
            set_full_moment(parameter, optimizer, moment, moments[name][moment])
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].fill_(step if moments else 0)
    learner.engine.global_steps = step
    learner.engine.lr_scheduler.step(step - 1)


def _make_optimizer_state(learner: Learner) -> None:
    """A step with no gradient at rate 0: before its first step an optimizer has no moments that could be set."""
    for group in learner.engine.optimizer.param_groups:
        group["lr"] = 0.0
    hand_over = DeepSpeedHandOver(learner.engine)
    learner.engine.set_gradient_accumulation_boundary(True)
    with hand_over.whole():
        hand_over.give(torch.zeros((), device=learner.device), [(p, torch.zeros_like(p)) for p in hand_over.parameters()])
    learner.engine.step()
    learner.engine.set_gradient_accumulation_boundary(None)  # the engine counts again
    learner.engine.micro_steps = 0


def _moments_of(learner: Learner) -> tuple[str, ...]:
    """The moments that the optimizer has by now: the same on every rank, though a ZeRO rank may own no element of a parameter."""
    states = base_optimizer(learner.engine).state.values()
    return tuple(moment for moment in MOMENTS if any(moment in state for state in states))


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous().clone()

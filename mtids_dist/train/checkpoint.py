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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtids_dist.balance import DeepSpeedHandOver
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


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The portable state of a checkpoint on disk."""

    folder: Path
    progress: Progress
    world_size: int
    zero_stage: int
    weights: dict[str, Tensor] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> SavedState:
        """The portable state in a checkpoint's folder."""
        state = json.loads((folder / "portable" / "state.json").read_text())
        return cls(
            folder=folder,
            progress=Progress(**state["progress"]),
            world_size=state["world_size"],
            zero_stage=state["zero_stage"],
            weights=load_file(folder / "portable" / "weights.safetensors"),
        )


def save_checkpoint(learner: Learner, progress: Progress, folder: Path) -> None:
    """Writes this rank's part into `folder`, a folder of its own; a collective. Rank 0's part has the portable state."""
    learner.engine.save_checkpoint(str(folder / "deepspeed"), tag=TAG)
    weights, moments = whole_weights(learner.model), _whole_moments(learner)
    if dist.get_rank() != 0:
        return
    portable = folder / "portable"
    portable.mkdir(parents=True)
    save_file(weights, portable / "weights.safetensors")
    save_file(moments, portable / "moments.safetensors")
    torch.save(learner.balancer.state_dict(), portable / "balancer.pt")
    state = {
        "progress": asdict(progress),
        "world_size": dist.get_world_size(),
        "zero_stage": learner.engine.zero_optimization_stage(),
        "tasks": list(learner.tasks),
    }
    (portable / "state.json").write_text(json.dumps(state, indent=1))


def load_checkpoint(learner: Learner, saved: SavedState) -> None:
    """Takes up optimizer and balancer; a collective. The weights must have been loaded before the engine was built.

    The same stage and number of ranks read DeepSpeed's own files; others the portable state, by parameter name.
    """
    engine = learner.engine
    if (saved.world_size, saved.zero_stage) == (dist.get_world_size(), engine.zero_optimization_stage()):
        engine.load_checkpoint(str(saved.folder / "deepspeed"), tag=TAG)
    else:
        _set_whole_moments(learner, load_file(saved.folder / "portable" / "moments.safetensors"), saved.progress.step)
    learner.balancer.load_state_dict(torch.load(saved.folder / "portable" / "balancer.pt", weights_only=True))


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """fp32 weights by parameter name, whole, on the CPU, whatever the ZeRO stage; a collective."""
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in model.named_parameters():
        whole = safe_get_full_fp32_param(parameter)
        weights[name] = _on_cpu(parameter if whole is None else whole)
    weights.update({name: _on_cpu(buffer) for name, buffer in model.named_buffers()})
    return weights


def _whole_moments(learner: Learner) -> dict[str, Tensor]:
    found = {}
    for name, parameter in learner.model.named_parameters():
        for moment in _moments_of(learner):
            value = _moment(learner, parameter, moment)
            if value is not None:
                found[f"{moment}.{name}"] = _on_cpu(value)
    return found


def _moment(learner: Learner, parameter: nn.Parameter, moment: str) -> Tensor | None:
    from deepspeed.utils import safe_get_full_optimizer_state

    whole: Tensor | None = safe_get_full_optimizer_state(parameter, moment)
    if whole is None:  # no ZeRO, fp32: a plain torch optimizer has it
        whole = _base_optimizer(learner).state.get(parameter, {}).get(moment)
    return whole


def _set_whole_moments(learner: Learner, moments: dict[str, Tensor], step: int) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state

    _make_optimizer_state(learner)
    optimizer = _base_optimizer(learner)
    for name, parameter in learner.model.named_parameters():
        for moment in _moments_of(learner):
            value = moments[f"{moment}.{name}"].to(learner.device)
            if parameter in optimizer.state:  # no ZeRO, fp32: a plain torch optimizer
                optimizer.state[parameter][moment].copy_(value)
            else:
                safe_set_full_optimizer_state(parameter, value, moment)
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].fill_(step)
    learner.engine.global_steps = step
    learner.engine.lr_scheduler.step(step - 1)


def _make_optimizer_state(learner: Learner) -> None:
    """A step with no gradient at rate 0: before its first step an optimizer has no moments that could be set."""
    for group in learner.engine.optimizer.param_groups:
        group["lr"] = 0.0
    hand_over = DeepSpeedHandOver(learner.engine)
    with hand_over.whole():
        hand_over.give(torch.zeros((), device=learner.device), [(p, torch.zeros_like(p)) for p in hand_over.parameters()])
    learner.engine.step()


def _moments_of(learner: Learner) -> tuple[str, ...]:
    """The moments that the optimizer has by now: the same on every rank, though a ZeRO rank may own no element of a parameter."""
    states = _base_optimizer(learner).state.values()
    return tuple(moment for moment in MOMENTS if any(moment in state for state in states))


def _base_optimizer(learner: Learner) -> torch.optim.Optimizer:
    optimizer: Any = learner.engine.optimizer
    return getattr(optimizer, "optimizer", optimizer)  # type: ignore[no-any-return]  # ZeRO wraps torch's own


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous().clone()

"""The one file that builds a DeepSpeed engine."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mtids_dist.errors import InputError
from mtids_dist.train.config import Optimizer, OptimizerConfig, Precision, ScaleConfig, Schedule


def build_engine(model: nn.Module, optimizer: OptimizerConfig, scale: ScaleConfig, *, batch_size: int, total_steps: int) -> Any:
    """A DeepSpeed engine around `model`; every rank of the process group calls this.

    :param batch_size: of this rank.
    :param total_steps: of the whole run, for the schedule.
    :raises InputError: precision that the device does not have, or settings that DeepSpeed refuses.
    """
    import deepspeed

    use_no_compiled_ops()
    _check_precision(scale.precision)
    settings = deepspeed_settings(optimizer, scale, batch_size=batch_size, total_steps=total_steps)
    try:
        engine, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=settings)
    except (AssertionError, ValueError) as error:
        raise InputError(f"DeepSpeed refuses these settings: {error}", where="train.scale.deepspeed") from error
    return engine


def close_engine(engine: Any) -> None:
    """Takes an engine down, so that this process can build another one in a new process group."""
    from deepspeed.utils import groups

    engine.destroy()
    groups._WORLD_GROUP = None  # DeepSpeed keeps its clone of the old process group for ever


def deepspeed_settings(optimizer: OptimizerConfig, scale: ScaleConfig, *, batch_size: int, total_steps: int) -> dict[str, Any]:
    """What DeepSpeed is given. Clipping is always written, since DeepSpeed's own default is 1.0, not off."""
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": batch_size // scale.micro_batches,
        "gradient_accumulation_steps": scale.micro_batches,
        "gradient_clipping": optimizer.gradient_clipping,
        "optimizer": _optimizer(optimizer),
        "scheduler": _schedule(optimizer, total_steps),
        "zero_optimization": {"stage": scale.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": scale.precision is Precision.BF16},
        "steps_per_print": 10**9,
    }
    return _merged(settings, scale.deepspeed)


def use_no_compiled_ops() -> None:
    """Keeps DeepSpeed from compiling its shared-memory collective at the first start: gloo does without, and so does a machine
    without a C++ compiler."""
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def _optimizer(config: OptimizerConfig) -> dict[str, Any]:
    params: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.name is Optimizer.SGD:
        return {"type": "SGD", "params": {**params, "momentum": config.momentum}}
    # torch's own Adam: DeepSpeed's fused and CPU versions are compiled at the first start.
    return {"type": "AdamW" if config.name is Optimizer.ADAMW else "Adam", "params": {**params, "torch_adam": True}}


def _schedule(config: OptimizerConfig, total_steps: int) -> dict[str, Any]:
    warmup = max(1, math.ceil(config.warmup_share * total_steps))  # DeepSpeed refuses 0
    if config.schedule is Schedule.CONSTANT:
        params = {
            "warmup_min_lr": 0.0,
            "warmup_max_lr": config.learning_rate,
            "warmup_num_steps": warmup,
            "warmup_type": "linear",
        }
        return {"type": "WarmupLR", "params": params}
    params = {"total_num_steps": total_steps, "warmup_num_steps": warmup, "cos_min_ratio": 0.0, "warmup_type": "linear"}
    return {"type": "WarmupCosineLR", "params": params}


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        mine = merged.get(key)
        merged[key] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def _check_precision(precision: Precision) -> None:
    if precision is Precision.BF16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bfloat16", where="train.scale.precision", found="bf16", allowed="fp32")

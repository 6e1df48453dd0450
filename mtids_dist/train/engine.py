"""The one file that builds a DeepSpeed engine."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtids_dist.errors import InputError
from mtids_dist.train.config import Optimizer, OptimizerConfig, Precision, ScaleConfig, Schedule
from mtids_dist.train.full_state import set_full_weight


def build_engine(model: nn.Module, optimizer: OptimizerConfig, scale: ScaleConfig, *, batch_size: int, total_steps: int) -> Any:
    """A DeepSpeed engine around `model`; every rank of the process group calls this.

    :param batch_size: of this rank.
    :param total_steps: of the whole run, for the schedule.
    :raises InputError: precision that the device does not have, or settings that DeepSpeed refuses or that leave no fp32 weights.
    """
    import deepspeed
    from deepspeed.runtime.config import DeepSpeedConfigError

    use_no_compiled_ops()
    _check_precision(scale.precision)
    settings = deepspeed_settings(optimizer, scale, batch_size=batch_size, total_steps=total_steps)
    exact = [(p, p.detach().clone()) for p in model.parameters()] if scale.precision is Precision.BF16 else []
    try:
        engine, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=settings)
    except (AssertionError, DeepSpeedConfigError, ImportError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"DeepSpeed refuses these settings: {why}", where="train.scale.deepspeed") from error
    _check_master_weights(engine)
    _set_master_weights(exact)
    if _clips_itself(optimizer, scale):
        _clip_at_once(engine, optimizer.gradient_clipping)
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
        "gradient_clipping": 0.0 if _clips_itself(optimizer, scale) else optimizer.gradient_clipping,
        "optimizer": _optimizer(optimizer),
        "scheduler": _schedule(optimizer, total_steps),
        "zero_optimization": {"stage": scale.running_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
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


def base_optimizer(engine: Any) -> torch.optim.Optimizer:
    """torch's own optimizer, which ZeRO wraps."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)  # type: ignore[no-any-return]


def _optimizer(config: OptimizerConfig) -> dict[str, Any]:
    """Fused: one call for all parameters, where torch's default takes a dozen for each of them."""
    params: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.name is Optimizer.SGD:
        return {"type": "SGD", "params": {**params, "momentum": config.momentum}}
    # torch's own Adam: DeepSpeed's fused and CPU versions are compiled at the first start. Without `adam_w_mode` Adam were AdamW.
    decoupled = config.name is Optimizer.ADAMW
    return {"type": "AdamW" if decoupled else "Adam", "params": {**params, "torch_adam": True, "adam_w_mode": decoupled}}


def _clips_itself(optimizer: OptimizerConfig, scale: ScaleConfig) -> bool:
    """Without ZeRO DeepSpeed clips parameter by parameter, and waits for the device at each."""
    return optimizer.gradient_clipping > 0 and scale.running_stage == 0


def _clip_at_once(engine: Any, largest: float) -> None:
    """Clips the mean gradients when the optimizer is about to take them, all in one call."""
    parameters = list(engine.module.parameters())

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, largest, foreach=True)

    engine.optimizer.register_step_pre_hook(clip)


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


def _set_master_weights(exact: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Puts the model's own weights back: DeepSpeed makes its fp32 weights of those that it has just rounded to bf16, and a run
    that goes on would lose with each start what its last steps have learned."""
    for parameter, value in exact:
        set_full_weight(parameter, value)


def _check_master_weights(engine: Any) -> None:
    # ZeRO-3 shows its optimizer parameters in a step only, and keeps them here.
    flat = getattr(engine.optimizer, "fp32_partitioned_groups_flat", ())
    kinds = {tensor.dtype for tensor in (*flat, *(p for group in base_optimizer(engine).param_groups for p in group["params"]))}
    if kinds != {torch.float32}:
        found = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise InputError("the optimizer must keep fp32 weights", where="train.scale.deepspeed", found=found, allowed="float32")

"""Whole fp32 weights and optimizer moments of an engine's parameters, read and written in any ZeRO stage."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def full_weight(parameter: nn.Parameter) -> Tensor | None:
    """The fp32 weight, whole; None without ZeRO, where the parameter is its own. A collective."""
    from deepspeed.utils import safe_get_full_fp32_param

    whole: Tensor | None = safe_get_full_fp32_param(parameter)
    return whole


def full_moment(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, moment: str) -> Tensor | None:
    """A moment of the optimizer, whole; None where it has no such. A collective.

    :param optimizer: torch's own.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    whole: Tensor | None = safe_get_full_optimizer_state(parameter, moment)
    if whole is None:  # no ZeRO: a plain torch optimizer has it
        whole = optimizer.state.get(parameter, {}).get(moment)
    return whole


def set_full_weight(parameter: nn.Parameter, value: Tensor) -> None:
    """Writes this rank's part of a fp32 weight [as the whole parameter]; the parameter's own copy in bf16 stays as it is."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    if _is_stub(parameter):
        safe_set_local_fp32_param(parameter, _part(parameter, value))
    else:
        safe_set_full_fp32_param(parameter, value.to(parameter.device))


def set_full_moment(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, moment: str, value: Tensor) -> None:
    """Writes this rank's part of a moment [as the whole parameter], which the optimizer must have."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if parameter in optimizer.state:  # no ZeRO
        optimizer.state[parameter][moment].copy_(value)
    elif _is_stub(parameter):
        safe_set_local_optimizer_state(parameter, _part(parameter, value), moment)
    else:
        safe_set_full_optimizer_state(parameter, value.to(parameter.device), moment)


def _is_stub(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 has cut the parameter in parts."""
    return hasattr(parameter, "ds_tensor")


def _part(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """This rank's part of a whole tensor, with zeros behind its end: DeepSpeed's own setters of whole tensors fall over parts
    that are not full."""
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]  # DeepSpeed's
    mine = value.flatten()[dist.get_rank() * size :][:size].to(parameter.device)
    return nn.functional.pad(mine, (0, size - len(mine)))

"""Gradients of many parameters as one row, and back. Under ZeRO-3 a parameter may be a stub: its whole shape counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def numel(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter, also where ZeRO-3 leaves this rank a part or nothing of it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def flatten(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    """One row [N] in the parameters' precision; zeros where a loss does not reach a parameter."""
    return torch.cat([p.new_zeros(numel(p)) if g is None else g.reshape(-1) for p, g in zip(parameters, gradients, strict=True)])


def unflatten(row: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Views of a row [N], in the shapes of the parameters."""
    pieces = row.split_with_sizes([numel(p) for p in parameters])
    return [piece.view(_shape(p)) for piece, p in zip(pieces, parameters, strict=True)]


def combine(weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """sum_k w_k row_k [N], in float32 or wider; takes the place of the first row where that is wide enough."""
    first, *others = rows
    total = first.to(torch.promote_types(first.dtype, torch.float32)).mul_(float(weights[0]))
    for weight, row in zip(weights.tolist()[1:], others, strict=True):
        total.add_(row, alpha=weight)
    return total


def weighted_sum(weights: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """sum_k w_k tensor_k in the tensors' own shape and precision, added up in float32 or wider; they stay as they are."""
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    total = tensors[0].to(wide) * float(weights[0])
    for weight, tensor in zip(weights.tolist()[1:], tensors[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total.to(tensors[0].dtype)


def added(total: Tensor, gradient: Tensor) -> Tensor:
    """Their sum, in float32 or wider: of micro-batches in bfloat16 the later ones would be rounded away."""
    return total.to(torch.promote_types(total.dtype, torch.float32)) + gradient


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """A scalar: whether none has nan or inf, by their largest magnitude, which torch finds for all at once."""
    if not tensors:
        return torch.tensor(True)
    return nn.utils.get_total_norm(tensors, norm_type=math.inf).isfinite()


def merged(gradients: Sequence[tuple[nn.Parameter, Tensor]]) -> dict[nn.Parameter, Tensor]:
    """One gradient a parameter: the sum, where several losses reach the same one."""
    found: dict[nn.Parameter, Tensor] = {}
    for parameter, gradient in gradients:
        found[parameter] = added(found[parameter], gradient) if parameter in found else gradient
    return found


def _shape(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))

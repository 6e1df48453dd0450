"""A task's gradients on many parameters as one row of the Jacobian: a tensor a parameter, so that nothing is copied together.

Under ZeRO-3 a parameter may be a stub: its whole shape counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Row = list[Tensor]


def numel(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter, also where ZeRO-3 leaves this rank a part or nothing of it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def filled(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Row:
    """The row of these gradients; zeros where a loss does not reach a parameter."""
    return [p.new_zeros(_shape(p)) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


def combine(weights: Tensor, rows: Sequence[Row]) -> Row:
    """sum_k w_k row_k, in float32 or wider. Takes the rows apart: what is in the sum is freed at once.

    Nothing is done in place, here and below: gradients out of autograd may share memory with each other or with the graph.
    """
    found: Row = []
    while rows[0]:
        found.append(weighted_sum(weights, [row.pop() for row in rows]))
    return found[::-1]


def weighted_sum(weights: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """sum_k w_k tensor_k in the tensors' shape, in float32 or wider."""
    first, *others = weights.tolist()
    total = torch.mul(tensors[0].to(torch.promote_types(tensors[0].dtype, torch.float32)), first)
    for weight, tensor in zip(others, tensors[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total


def add_to(total: Row, row: Row) -> None:
    """Takes the row's tensors one by one into the sum's: there is no room for another row."""
    for place, tensor in enumerate(row):
        total[place] = added(total[place], tensor)


def added(total: Tensor, gradient: Tensor) -> Tensor:
    """Their sum, in float32 or wider: of micro-batches in bfloat16 the later ones would be rounded away."""
    return total.to(torch.promote_types(total.dtype, torch.float32)) + gradient


def unshared(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Copies of those that share memory with another one or with themselves (expanded ones), as autograd may make them."""
    seen: set[int] = set()
    found = []
    for gradient in gradients:
        place = gradient.untyped_storage().data_ptr()
        whole = gradient.untyped_storage().nbytes() == gradient.nbytes
        found.append(gradient if whole and place not in seen else gradient.clone(memory_format=torch.contiguous_format))
        seen.add(place)
    return found


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """A scalar: whether none has nan or inf, by the least and the largest element, which show both and are quick to find."""
    ends = [torch.stack(torch.aminmax(tensor)) for tensor in tensors if tensor.numel()]
    return torch.cat(ends).isfinite().all() if ends else torch.tensor(True)


def merged(gradients: Sequence[tuple[nn.Parameter, Tensor]]) -> dict[nn.Parameter, Tensor]:
    """One gradient a parameter: the sum, where several losses reach the same one."""
    found: dict[nn.Parameter, Tensor] = {}
    for parameter, gradient in gradients:
        found[parameter] = added(found[parameter], gradient) if parameter in found else gradient
    return found


def _shape(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))

"""A task's gradients on many parameters as one row of the Jacobian: a tensor a parameter, so that nothing is copied together.

Under ZeRO-3 a parameter may be a stub: its whole shape counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Row = list[Tensor]
NARROW = (torch.bfloat16, torch.float16)
BUCKET = 1 << 22
"""Numbers that are added up in one call: enough for an accelerator, and little beside a large network's gradients."""


def numel(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter, also where ZeRO-3 leaves this rank a part or nothing of it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def filled(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Row:
    """The row of these gradients; zeros where a loss does not reach a parameter."""
    return [p.new_zeros(_shape(p)) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


def combine(weights: Tensor, rows: Sequence[Row]) -> Row:
    """sum_k w_k row_k, in float32 or wider. Takes the rows apart: what is in the sum is freed before the next bucket is made.

    Nothing is done in place, here and below: gradients out of autograd may share memory with each other or with the graph.
    """
    found: Row = []
    while rows[0]:
        size = _last_bucket(rows[0])
        bucket = [row[-size:] for row in rows]
        for row in rows:
            del row[-size:]
        found += weighted_sum(weights, bucket)[::-1]
    return found[::-1]


def weighted_sum(weights: Tensor, rows: Sequence[Sequence[Tensor]]) -> Row:
    """sum_k w_k row_k in the tensors' shapes, in float32 or wider.

    :param weights: [K] on the CPU, so that nothing waits for a device.
    """
    first, *others = weights.tolist()
    total = torch._foreach_mul(widened(rows[0]), first)
    for weight, row in zip(others, rows[1:], strict=True):
        torch._foreach_add_(total, widened(row), alpha=weight)
    return list(total)


def widened(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in float32, or in their own precision where that is wider."""
    narrow = [place for place, tensor in enumerate(tensors) if tensor.dtype in NARROW]
    found = list(tensors)
    if narrow:
        for place, wide in zip(narrow, rounded([tensors[place] for place in narrow], torch.float32), strict=True):
            found[place] = wide
    return found


def add_to(total: Row, row: Row) -> None:
    """Takes the row's tensors bucket by bucket into the sum's, in float32 or wider: there is no room for another row.

    Of micro-batches in bfloat16 the later ones would be rounded away.
    """
    end = len(total)
    while end:
        start = end - _last_bucket(total[:end])
        total[start:end] = added(total[start:end], row[start:end])
        end = start


def added(total: Sequence[Tensor], gradients: Sequence[Tensor]) -> Row:
    """The sums, in float32 or wider."""
    return list(torch._foreach_add(widened(total), widened(gradients))) if total else []


def _last_bucket(row: Sequence[Tensor]) -> int:
    """How many of the last tensors make a bucket: at least one, and at most `BUCKET` numbers where they are more."""
    numbers = 0
    for count, tensor in enumerate(reversed(row)):
        numbers += tensor.numel()
        if numbers > BUCKET:
            return max(count, 1)
    return len(row)


def scaled(gradients: Sequence[Tensor], factor: Tensor, dtypes: Sequence[torch.dtype]) -> Row:
    """New tensors: each gradient times a scalar, then rounded to its parameter's precision."""
    places: dict[tuple[torch.dtype, torch.dtype], list[int]] = {}
    for place, kinds in enumerate(zip((gradient.dtype for gradient in gradients), dtypes, strict=True)):
        places.setdefault(kinds, []).append(place)
    found = list(gradients)
    for (mine, wanted), group in places.items():  # of one kind each, which is what one kernel takes
        while group:
            bucket = group[-_last_bucket([gradients[place] for place in group]) :]
            del group[-len(bucket) :]
            products = torch._foreach_mul([gradients[place] for place in bucket], factor.to(mine))
            for place, product in zip(bucket, products if mine == wanted else rounded(products, wanted), strict=True):
                found[place] = product
    return found


def rounded(tensors: Sequence[Tensor], dtype: torch.dtype) -> Row:
    """The tensors in another precision."""
    found = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(found, list(tensors))
    return found


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


def all_finite(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """A scalar on the device of the tensors: whether none has nan or inf, or numbers so large that its norm has.

    Norms of all tensors are one call, and as quick as to look for the largest number.
    """
    if not tensors:
        return torch.ones((), dtype=torch.bool, device=device)
    half = any(tensor.dtype is torch.float16 for tensor in tensors)  # whose own range ends at 65504
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float32 if half else None)
    return torch.stack(norms).isfinite().all()


def merged(found: Mapping[nn.Parameter, Tensor], more: Mapping[nn.Parameter, Tensor]) -> dict[nn.Parameter, Tensor]:
    """One gradient a parameter: the sum, where both have one."""
    both = [parameter for parameter in more if parameter in found]
    sums = added([found[parameter] for parameter in both], [more[parameter] for parameter in both])
    return {**found, **more, **dict(zip(both, sums, strict=True))}


def _shape(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))

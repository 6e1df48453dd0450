"""The two places where K losses are differentiated: at the shared parameters, or at the border in front of the private parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mtids_dist.balance.rows import Row, all_finite, filled, merged, weighted_sum

PrivateGradients = dict[nn.Parameter, Tensor]


def at_parameters(
    losses: Sequence[Tensor], shared: Sequence[nn.Parameter], private: Sequence[nn.Parameter]
) -> Iterator[tuple[Row, PrivateGradients]]:
    """One loss after the other: its gradient on the shared parameters as a row, and on its private ones."""
    for k, loss in enumerate(losses):
        gradients = torch.autograd.grad(loss, [*shared, *private], retain_graph=k < len(losses) - 1, allow_unused=True)
        row = filled(gradients[: len(shared)], shared)
        own = _reached(private, gradients[len(shared) :])
        del gradients  # else they would lie beside the row through the next loss's backward
        yield row, own


class AtBorder:
    """Gradients at the border tensors, and one backward from there through the shared part.

    :param features: border tensors; one that needs no gradient (a frozen trunk's) is left out.
    """

    def __init__(self, losses: Sequence[Tensor], features: Sequence[Tensor], private: Sequence[nn.Parameter]) -> None:
        self._features = [feature for feature in features if feature.requires_grad]
        self.rows: list[Row] = []
        self.private: PrivateGradients = {}
        for k, loss in enumerate(losses):
            wanted = [*self._features, *private]
            gradients = torch.autograd.grad(loss, wanted, retain_graph=k < len(losses) - 1, allow_unused=True)
            at_border = zip(self._features, gradients[: len(self._features)], strict=True)
            self.rows.append([torch.zeros_like(feature) if g is None else g for feature, g in at_border])
            self.private = merged(self.private, _reached(private, gradients[len(self._features) :]))

    def finite(self) -> Tensor:
        """[K] whether each task's gradient at the border is free of nan and inf."""
        return torch.stack([all_finite(row, row[0].device) for row in self.rows])

    def shared_gradients(self, weights: Tensor, shared: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """The gradient of sum_k w_k L_k on the shared parameters."""
        sums = weighted_sum(weights, self.rows)
        combined = [total.to(feature.dtype) for total, feature in zip(sums, self._features, strict=True)]
        return list(torch.autograd.grad(self._features, shared, grad_outputs=combined, allow_unused=True))


def _reached(private: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> PrivateGradients:
    return {parameter: gradient for parameter, gradient in zip(private, gradients, strict=True) if gradient is not None}

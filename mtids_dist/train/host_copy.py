"""Numbers on their way from the device, for which nobody waits before they are read."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """The values of a 1-D float64 tensor as they are now, copied to the host while the device goes on.

    :param values: on any device; it may be written to again at once.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._values = values.clone()

    @property
    def is_here(self) -> bool:
        """Whether reading them waits for nothing."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def read(self) -> list[float]:
        """The values, as soon as they are here."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values

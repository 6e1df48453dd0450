"""Which tasks have a gradient in a step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RELATIVE_FLOOR = 1e-12


def active_tasks(norms: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mask [K] of the tasks whose gradient norm is more than 1e-12 of the largest; all False when every norm is zero."""
    active: npt.NDArray[np.bool_] = norms > RELATIVE_FLOOR * norms.max(initial=0.0)
    return active

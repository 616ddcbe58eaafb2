"""What one step of a process of n rows brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Outcome:
    """What one step brought, n rows.

    Attributes:
        observation: (n, size) float32.
        reward: (n,) float64.
        terminated: (n,) bool.
        info: arrays (n, ...) by name, and dicts of such.
    """

    observation: NDArray[np.float32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    info: dict[str, Any]

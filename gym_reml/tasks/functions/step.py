"""Step functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Step(Regression1d):
    """y = before where x < edge, else after; both levels ~ U[-3, 3], edge ~ U[-3, 3]."""

    name: ClassVar[str] = "step"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"before": (-3.0, 3.0), "after": (-3.0, 3.0), "edge": (-3.0, 3.0)}

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        return np.where(x < parameters["edge"], parameters["before"], parameters["after"])

"""Straight lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Linear(Regression1d):
    """y = slope x + intercept, slope ~ U[-1, 1], intercept ~ U[-2, 2]."""

    name: ClassVar[str] = "linear"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"slope": (-1.0, 1.0), "intercept": (-2.0, 2.0)}

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        return parameters["slope"] * x + parameters["intercept"]

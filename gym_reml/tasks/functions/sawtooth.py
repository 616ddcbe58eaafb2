"""Sawtooth waves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Sawtooth(Regression1d):
    """y = amplitude (2 frac((x - shift) / period) - 1), amplitude ~ U[0.5, 3], period ~ U[3, 8], shift ~ U[0, 5]."""

    name: ClassVar[str] = "sawtooth"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"amplitude": (0.5, 3.0), "period": (3.0, 8.0), "shift": (0.0, 5.0)}

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        cycles = (x - parameters["shift"]) / parameters["period"]
        return parameters["amplitude"] * (2.0 * (cycles - np.floor(cycles)) - 1.0)

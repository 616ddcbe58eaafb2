"""Linear ramps between two constant levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Ramp(Regression1d):
    """y = level + rise clip((x - middle) / length, -1/2, 1/2): constant, linear, constant.

    level ~ U[-1.5, 1.5], rise ~ +-U[2, 6], middle ~ U[-2, 2], length ~ U[1, 4]. The linear part is at least 1 long and
    within [-4, 4], so no function of the family is a step or a line.
    """

    name: ClassVar[str] = "ramp"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"level": (-1.5, 1.5), "rise": (2.0, 6.0), "middle": (-2.0, 2.0), "length": (1.0, 4.0)}
    either_sign: ClassVar = frozenset({"rise"})

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        progress = np.clip((x - parameters["middle"]) / parameters["length"], -0.5, 0.5)
        return parameters["level"] + parameters["rise"] * progress

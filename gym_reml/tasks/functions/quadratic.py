"""Parabolas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Quadratic(Regression1d):
    """y = curvature (x - vertex)^2 + offset, curvature ~ U[-0.2, 0.2], vertex ~ U[-2, 2], offset ~ U[-2, 2]."""

    name: ClassVar[str] = "quadratic"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"curvature": (-0.2, 0.2), "vertex": (-2.0, 2.0), "offset": (-2.0, 2.0)}

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        return parameters["curvature"] * (x - parameters["vertex"]) ** 2 + parameters["offset"]

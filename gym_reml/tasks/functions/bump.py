"""Gaussian bumps of either sign on a constant level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Bump(Regression1d):
    """y = height exp(-((x - centre) / width)^2) + level.

    height ~ +-U[2, 6], centre ~ U[-3, 3], width ~ U[0.75, 2.5], level ~ U[-1.5, 1.5]. Wider bumps
    would be close to parabolas on [-5, 5].
    """

    name: ClassVar[str] = "bump"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"height": (2.0, 6.0), "centre": (-3.0, 3.0), "width": (0.75, 2.5), "level": (-1.5, 1.5)}
    either_sign: ClassVar = frozenset({"height"})

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        distance = (x - parameters["centre"]) / parameters["width"]
        return parameters["height"] * np.exp(-(distance**2)) + parameters["level"]

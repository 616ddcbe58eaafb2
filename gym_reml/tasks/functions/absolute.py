"""Absolute values of linear functions (V shapes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class Absolute(Regression1d):
    """`y = slope |x - corner| + level`, slope ~ +-U[0.4, 1], corner ~ U[-3, 3], level ~ U[-2, 2].

    Both arms are at least 2 wide and never flat, so no function of the family is linear on [-5, 5].
    """

    name: ClassVar[str] = "absolute"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"slope": (0.4, 1.0), "corner": (-3.0, 3.0), "level": (-2.0, 2.0)}
    either_sign: ClassVar = frozenset({"slope"})

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        return parameters["slope"] * np.abs(x - parameters["corner"]) + parameters["level"]

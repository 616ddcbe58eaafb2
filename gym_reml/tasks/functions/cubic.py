"""Cubic polynomials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import INPUT_RANGE, Regression1d


@dataclass(frozen=True)
class Cubic(Regression1d):
    """y = level + tilt z + bend (2 z^2 - 1) + twist (4 z^3 - 3 z) with z = x / 5.

    level ~ U[-1.5, 1.5], tilt ~ U[-3, 3], bend ~ U[-2, 2], twist ~ +-U[0.5, 2.5]. This is an expansion in Chebyshev
    polynomials, each within [-1, 1] on [-5, 5], so y is within [-9, 9]. The coefficient of z^3 is 4 twist, so no
    function of the family is a parabola.
    """

    name: ClassVar[str] = "cubic"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"level": (-1.5, 1.5), "tilt": (-3.0, 3.0), "bend": (-2.0, 2.0), "twist": (0.5, 2.5)}
    either_sign: ClassVar = frozenset({"twist"})

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        z = x / INPUT_RANGE[1]
        even = parameters["level"] + parameters["bend"] * (2.0 * z**2 - 1.0)
        return even + z * (parameters["tilt"] + parameters["twist"] * (4.0 * z**2 - 3.0))

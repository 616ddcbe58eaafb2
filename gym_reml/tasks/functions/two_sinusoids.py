"""Sums of a slow and a fast sinusoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d


@dataclass(frozen=True)
class TwoSinusoids(Regression1d):
    """y = slow_amplitude sin(slow_frequency x - slow_phase) + fast_amplitude sin(fast_frequency x - fast_phase).

    Amplitudes ~ U[0.5, 3], phases ~ U[0, 2 pi], slow_frequency ~ U[0.5, 1], fast_frequency ~ U[1.25, 2]. Amplitudes
    are never 0 and frequencies never equal, so no function of the family is a sinusoid.
    """

    name: ClassVar[str] = "two_sinusoids"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {
        "slow_amplitude": (0.5, 3.0),
        "slow_frequency": (0.5, 1.0),
        "slow_phase": (0.0, 2.0 * np.pi),
        "fast_amplitude": (0.5, 3.0),
        "fast_frequency": (1.25, 2.0),
        "fast_phase": (0.0, 2.0 * np.pi),
    }

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        slow = np.sin(parameters["slow_frequency"] * x - parameters["slow_phase"])
        fast = np.sin(parameters["fast_frequency"] * x - parameters["fast_phase"])
        return parameters["slow_amplitude"] * slow + parameters["fast_amplitude"] * fast

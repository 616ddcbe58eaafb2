"""MAML's sinusoids (Finn et al. 2017, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.regression1d import Regression1d


@dataclass(frozen=True)
class Sinusoid(Regression1d):
    """y = amplitude sin(x - phase), amplitude ~ U[0.1, 5], phase ~ U[0, pi]."""

    name: ClassVar[str] = "sinusoid"
    ranges: ClassVar = {"amplitude": (0.1, 5.0), "phase": (0.0, np.pi)}

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        return parameters["amplitude"] * np.sin(x - parameters["phase"])

"""The sinusoids of MAML (Finn et al. 2017, arXiv:1703.03400, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.base import Regression1d, checked_range


@dataclass(frozen=True)
class Sinusoid(Regression1d):
    """y = amplitude sin(x - phase), amplitude ~ U[0.1, 5], phase ~ U[0, pi].

    Attributes:
        amplitude: (low, high) of the amplitudes. Other ranges than the default, MAML's, give out-of-distribution tasks.
        phase: (low, high) of the phases.

    Raises:
        ValueError: a range that is not two finite numbers with low <= high.
    """

    name: ClassVar[str] = "sinusoid"
    in_threads: ClassVar[bool] = True

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, np.pi)

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges = {name: checked_range(name, getattr(self, name)) for name in ("amplitude", "phase")}
        for name, bounds in ranges.items():
            object.__setattr__(self, name, bounds)
        object.__setattr__(self, "ranges", ranges)

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        return parameters["amplitude"] * np.sin(x - parameters["phase"])

"""Small random neural networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.base import Generators, Tasks, uniforms
from gym_reml.tasks.functions.base import Regression1d

UNITS = 8


@dataclass(frozen=True)
class Network(Regression1d):
    """y = the sum over 8 hidden units of height tanh(slope (x - centre)).

    Each unit has its own height ~ +-U[0.3, 1.2], slope ~ U[0.25, 1.5] and centre ~ U[-5, 5]: a 1-8-1 network whose
    units all have their inflection point within the inputs. Slopes are positive, as tanh is odd.
    """

    name: ClassVar[str] = "network"
    in_threads: ClassVar[bool] = True
    ranges: ClassVar = {"heights": (0.3, 1.2), "slopes": (0.25, 1.5), "centres": (-5.0, 5.0)}
    either_sign: ClassVar = frozenset({"heights"})

    def draw(self, generators: Generators) -> Tasks:
        numbers = uniforms(generators, len(self.ranges) * UNITS).reshape(-1, len(self.ranges), UNITS)
        return self.scaled(numbers.swapaxes(0, 1))

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        hidden = np.tanh(parameters["slopes"] * (x[:, :, None] - parameters["centres"]))
        # Not a matrix product, whose rounding may depend on the batch size.
        return (parameters["heights"] * hidden).sum(axis=2)

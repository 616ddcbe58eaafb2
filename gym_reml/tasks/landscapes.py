"""Test functions of optimization as tasks: the outputs of a network are the point at which a function is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gym_reml.checks import check_integer
from gym_reml.tasks.base import Batch, Forward, Generators, TaskFamily, Tasks, uniforms

SHIFT = 0.25
"""Largest displacement of a function, in half-widths of its box."""
SCALES = (0.1, 10.0)
"""Values are multiplied by a number between these, log-uniform."""


@dataclass(frozen=True)
class Function:
    """A test function.

    Attributes:
        value: (n,) at points (n, d).
        box: where it is usually searched: the same interval for every coordinate, or one for each of two.
        minimum: its least value, as a function of d.
        size: about its mean in the box, in two dimensions.
        plane: whether it has two dimensions only.
    """

    value: Callable[[Tensor], Tensor]
    box: tuple[tuple[float, float], ...]
    minimum: Callable[[int], float] = lambda dimension: 0.0
    size: float = 1.0
    plane: bool = True


def _rosenbrock(x: Tensor) -> Tensor:
    now, then = x[:, :-1], x[:, 1:]
    return (100.0 * (then - now.square()).square() + (1.0 - now).square()).sum(dim=1)


def _beale(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return (1.5 - a + a * b).square() + (2.25 - a + a * b**2).square() + (2.625 - a + a * b**3).square()


def _booth(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return (a + 2.0 * b - 7.0).square() + (2.0 * a + b - 5.0).square()


def _branin(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    valley = b - 5.1 / (4.0 * math.pi**2) * a.square() + 5.0 / math.pi * a - 6.0
    return valley.square() + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * a.cos() + 10.0


def _ackley(x: Tensor) -> Tensor:
    # The root has no derivative at the minimum; this one differs by less than 1e-5.
    far = (x.square().mean(dim=1) + 1e-12).sqrt()
    return 20.0 + math.e - 20.0 * torch.exp(-0.2 * far) - torch.exp(torch.cos(2.0 * math.pi * x).mean(dim=1))


def _matyas(x: Tensor) -> Tensor:
    return 0.26 * x.square().sum(dim=1) - 0.48 * x[:, 0] * x[:, 1]


def _michalewicz(x: Tensor) -> Tensor:
    order = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    return -(x.sin() * (order * x.square() / math.pi).sin() ** 20).sum(dim=1)


def _styblinski_tang(x: Tensor) -> Tensor:
    return (x**4 - 16.0 * x.square() + 5.0 * x).sum(dim=1) / 2.0


FUNCTIONS: dict[str, Function] = {
    "bowl": Function(lambda x: x.square().sum(dim=1), ((-1.0, 1.0),), size=0.67, plane=False),
    # Of A x, see `Landscape`.
    "quadratic": Function(lambda x: x.square().sum(dim=1), ((-1.0, 1.0),), size=0.67, plane=False),
    "rosenbrock": Function(_rosenbrock, ((-2.0, 2.0),), size=455.0, plane=False),
    "beale": Function(_beale, ((-4.5, 4.5),), size=8550.0),
    "booth": Function(_booth, ((-10.0, 10.0),), size=407.0),
    "branin": Function(_branin, ((-5.0, 10.0), (0.0, 15.0)), lambda dimension: 0.39788736, size=53.9),
    "ackley": Function(_ackley, ((-5.0, 5.0),), size=9.7, plane=False),
    "matyas": Function(_matyas, ((-10.0, 10.0),), size=17.3),
    "michalewicz": Function(_michalewicz, ((0.0, math.pi),), lambda dimension: -1.8013034, size=1.59),
    "styblinski_tang": Function(
        _styblinski_tang, ((-5.0, 5.0),), lambda dimension: -39.166166 * dimension, size=70.0, plane=False
    ),
}
"""Test functions by name (Wichrowska et al. 2017, arXiv:1703.04813, appendix; Molga and Smutnicki 2005)."""


@dataclass(frozen=True)
class Landscape(TaskFamily):
    """Minimise a function of a point, which is the output of the network for the constant input 1.

    The loss is the value of the function above its minimum. The box in which the function is usually searched is
    [-1, 1] for outputs. Each task has its own `shift` of the function, uniform in +-.25, and `scale` of its values,
    log-uniform from .1 to 10; "quadratic" is `|A x|^2 / d`, with a `matrix` A of standard normal numbers. Support and
    query set are the same single point.

    Attributes:
        function: a name of `FUNCTIONS`.
        dimension: of the point.

    Raises:
        ValueError: an unknown function, one that has two dimensions only, or other shots or queries than 1.
    """

    name: ClassVar[str] = "landscape"

    shots: int | tuple[int, int] = 1
    queries: int = 1
    function: str = "quadratic"
    dimension: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("shots", "queries"):
            if getattr(self, argument) != 1:
                raise ValueError(f"{argument}={getattr(self, argument)!r}: must be 1; a landscape is one function")
        if self.function not in FUNCTIONS:
            raise ValueError(f"function={self.function!r}: must be one of {', '.join(map(repr, FUNCTIONS))}")
        check_integer("dimension", self.dimension, 2 if self.function == "rosenbrock" else 1)
        if FUNCTIONS[self.function].plane and self.dimension != 2:
            raise ValueError(f"dimension={self.dimension!r}: must be 2 for function={self.function!r}")

    @property
    def in_features(self) -> int:
        return 1

    @property
    def out_features(self) -> int:
        return self.dimension

    def draw(self, generators: Generators) -> Tasks:
        numbers = uniforms(generators, self.dimension + 1)
        tasks: Tasks = {
            "shift": SHIFT * (2.0 * numbers[:, :-1] - 1.0),
            "scale": np.exp(np.log(SCALES[0]) + numbers[:, -1] * np.log(SCALES[1] / SCALES[0])),
        }
        if self.function == "quadratic":
            tasks["matrix"] = np.stack([g.standard_normal((self.dimension, self.dimension)) for g in generators])
        return tasks

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        count = len(generators)
        extras = {name: torch.from_numpy(values.astype(np.float32)) for name, values in tasks.items()}
        return Batch(torch.ones(count, 1, 1), torch.zeros(count, 1, self.dimension), extras)

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self.support(tasks, forward, generators)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        about, extras = FUNCTIONS[self.function], batch.extras
        moved = outputs[:, 0] - extras["shift"]
        if "matrix" in extras:
            moved = torch.einsum("nij,nj->ni", extras["matrix"], moved) / math.sqrt(self.dimension)
        low, high = torch.tensor(about.box, dtype=outputs.dtype, device=outputs.device).T
        value = about.value((low + high) / 2.0 + (high - low) / 2.0 * moved)
        above = (value - about.minimum(self.dimension)).clamp(min=0.0)
        return extras["scale"] / about.size * above

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        return {"value": loss}

"""Optimizers at work on problems side by side: learned ones, those of torch, and what becomes of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.networks.optimizers import find_optimizer

from .layout import Layout
from .problems import Problems

FLOOR = 1e-6
"""Added to losses relative to the first before their logarithm."""
DIVERGED = 10.0
"""A loss above so many times the first is one of a run that has diverged, and counts as this."""


class Method(Protocol):
    """An optimizer for n problems side by side; `Rule` is one."""

    def initial(self, layout: Layout, count: int) -> dict[str, Any]:
        """The state before the first step of `count` problems."""

    def __call__(
        self, gradients: Tensor, parameters: Tensor, state: dict[str, Any], layout: Layout
    ) -> tuple[Tensor, dict[str, Any]]:
        """The step (n, P), to be added to the parameters, and the state after it."""


@dataclass(frozen=True)
class Fixed:
    """An optimizer of `gym_reml.networks.optimizers` with constant step sizes.

    Attributes:
        name: of the optimizer.
        rates: (n,) or (1,), step sizes of the problems.
    """

    name: str
    rates: Tensor

    def initial(self, layout: Layout, count: int) -> dict[str, Any]:
        optimizer = find_optimizer(self.name)
        tensors = optimizer.initial([torch.zeros(count, layout.count)])
        return {"tensors": tensors, "count": torch.zeros(count, dtype=torch.int64)}

    def __call__(
        self, gradients: Tensor, parameters: Tensor, state: dict[str, Any], layout: Layout
    ) -> tuple[Tensor, dict[str, Any]]:
        directions, tensors = find_optimizer(self.name).direction([gradients], state["tensors"], count=state["count"])
        return -self.rates[:, None] * directions[0], {"tensors": tensors, "count": state["count"] + 1}


@dataclass(frozen=True)
class Descent:
    """How runs went.

    Attributes:
        log_ratio: (S, n), log10 of the loss on all points over the first one, plus `FLOOR`.
        diverged: (S, n) bool, whether the loss was above `DIVERGED` times the first, or none, at that step.
    """

    log_ratio: NDArray[np.float64]
    diverged: NDArray[np.bool_]


def losses_and_gradients(problems: Problems, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (n,) of the next minibatches, and their gradients (n, P), without derivatives of either."""
    with torch.enable_grad():
        leaf = parameters.detach().requires_grad_()
        losses = problems.loss(leaf, problems.minibatch())
        (gradients,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradients


@torch.no_grad()
def descend(method: Method, problems: Problems, steps: Sequence[int]) -> Descent:
    """Runs an optimizer on every problem.

    Args:
        method: the optimizer.
        problems: their minibatches are used up.
        steps: after which the losses are measured, ascending.
    """
    layout, parameters = problems.kind.layout, problems.start
    state = method.initial(layout, len(problems))
    first = problems.loss(parameters, problems.everything)
    ratios = []
    for step in range(1, steps[-1] + 1):
        _, gradients = losses_and_gradients(problems, parameters)
        change, state = method(gradients, parameters, state, layout)
        parameters = parameters + change
        if step in steps:
            ratios.append(problems.loss(parameters, problems.everything) / first)
    return described(ratios)


def described(ratios: Sequence[Tensor]) -> Descent:
    """Of losses over the first, (n,) for each number of steps."""
    ratio = np.nan_to_num(torch.stack(list(ratios)).double().numpy(), nan=np.inf)
    worst = ratio > DIVERGED
    return Descent(np.log10(np.where(worst, DIVERGED, ratio) + FLOOR), worst)

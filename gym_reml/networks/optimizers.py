"""Optimizers of the inner loop: gradient descent, momentum, Adam and RMSprop for n networks side by side.

They compute what `torch.optim` computes, for each row on its own, as functions without hidden state that autograd can
differentiate: a replay takes the exact meta-gradient through them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

State = list[tuple[Tensor, ...]]
"""For each weight its state tensors, each of the weight's shape (n, ...)."""

EPSILON = 1e-8
"""Added to root mean squares before dividing by them, as in `torch.optim`."""

STEEP = 1e-25
"""Largest square whose root has derivative 0: at its root, 3e-13, second derivatives would overflow float32."""


class Optimizer(ABC):
    """Turns gradients into the directions of steps: the step is w - step_size * rate * direction.

    Attributes:
        name: key in `OPTIMIZERS`.
        tensors: number of state tensors of a weight; all are zeros at the beginning.
        has_momentum: whether `direction` takes a `momentum`.
    """

    name: ClassVar[str]
    tensors: ClassVar[int] = 0
    has_momentum: ClassVar[bool] = False

    def initial(self, weights: Sequence[Tensor]) -> State:
        """The state before the first step: zeros.

        Args:
            weights: tensors (n, ...).
        """
        return [tuple([torch.zeros_like(weight) for _ in range(self.tensors)]) for weight in weights]

    def direction(
        self, gradients: Sequence[Tensor], state: State, *, count: Tensor, momentum: Tensor | None = None
    ) -> tuple[list[Tensor], State]:
        """The directions of one step and the state after it; differentiable with respect to all tensors given.

        Derivatives are finite also where gradients and state are 0.

        Args:
            gradients: tensors (n, ...).
            state: as returned by `initial` or the step before.
            count: int64, number of steps taken before this one, for the bias correction: (n,), or (weights, n) if some
                weights were added later.
            momentum: (n,), coefficients in place of .9 (Adam's first beta); None for .9.

        Raises:
            ValueError: a momentum for an optimizer without.
        """
        if momentum is not None and not self.has_momentum:
            raise ValueError(f"momentum: must be None for optimizer={self.name!r}, which has none")
        directions: list[Tensor] = []
        after: State = []
        for gradient, tensors, steps in zip(gradients, state, count.expand(len(gradients), -1), strict=True):
            shape = (-1, *[1] * (gradient.ndim - 1))
            decay = 0.9 if momentum is None else momentum.to(gradient.dtype).reshape(shape)
            direction, new = self._one(gradient, tensors, (steps + 1).to(gradient.dtype).reshape(shape), decay)
            directions.append(direction)
            after.append(new)
        return directions, after

    @abstractmethod
    def _one(
        self, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, momentum: Tensor | float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Direction and new state of one weight; `step` counts from 1 and broadcasts to the gradient."""


class Sgd(Optimizer):
    """Gradient descent, `torch.optim.SGD`: the direction is the gradient."""

    name = "sgd"

    def _one(
        self, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, momentum: Tensor | float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return gradient, ()


class Momentum(Optimizer):
    """`torch.optim.SGD(momentum=0.9)`, without dampening (Sutskever et al. 2013)."""

    name = "momentum"
    tensors = 1
    has_momentum = True

    def _one(
        self, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, momentum: Tensor | float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        velocity = state[0] * momentum + gradient
        return velocity, (velocity,)


class Adam(Optimizer):
    """`torch.optim.Adam` with its defaults, betas .9 and .999 (Kingma and Ba 2015, arXiv:1412.6980)."""

    name = "adam"
    tensors = 2
    has_momentum = True
    beta = 0.999

    def _one(
        self, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, momentum: Tensor | float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        mean = state[0] * momentum + gradient * (1.0 - momentum)
        square = state[1] * self.beta + gradient.square() * (1.0 - self.beta)
        # 1 - beta^step by expm1, which float32 does not round away.
        decay = momentum.log() if isinstance(momentum, Tensor) else math.log(momentum)
        unbiased = mean / -torch.expm1(step * decay)
        scale = torch.expm1(step * math.log(self.beta)).neg().sqrt()
        return unbiased / (_root(square) / scale + EPSILON), (mean, square)


class RmsProp(Optimizer):
    """`torch.optim.RMSprop` with its defaults, alpha .99 (Tieleman and Hinton 2012)."""

    name = "rmsprop"
    tensors = 1
    alpha = 0.99

    def _one(
        self, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, momentum: Tensor | float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        square = state[0] * self.alpha + gradient.square() * (1.0 - self.alpha)
        return gradient / (_root(square) + EPSILON), (square,)


def _root(square: Tensor) -> Tensor:
    """Square roots whose derivatives are 0, not infinite, near 0, where `EPSILON` outweighs them."""
    if not square.requires_grad:
        return square.sqrt()
    steep = square <= STEEP
    return square.masked_fill(steep, 1.0).sqrt().where(~steep, square.detach().sqrt())


OPTIMIZERS: dict[str, Optimizer] = {optimizer.name: optimizer for optimizer in (Sgd(), Momentum(), Adam(), RmsProp())}


def find_optimizer(name: str) -> Optimizer:
    """The optimizer of this name.

    Raises:
        ValueError: an unknown name; the message lists the choices.
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name!r}: must be one of {', '.join(map(repr, OPTIMIZERS))}")
    return OPTIMIZERS[name]

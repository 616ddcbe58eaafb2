"""Optimizers of the inner loop: gradient descent, momentum, Adam and RMSprop for n networks side by side.

They compute what `torch.optim` computes, for each row on its own, as functions without hidden state that autograd can
differentiate: a replay takes the exact meta-gradient through them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gym_reml.networks.weights import Weights, by_row, clipped

Tensors = tuple[Tensor, ...]
"""The state of one weight, each of the weight's shape (n, ...)."""

State = list[Tensors]
"""For each weight its state tensors."""

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
        self,
        gradients: Sequence[Tensor],
        state: State,
        *,
        count: Tensor,
        momentum: Tensor | None = None,
        reuse: bool = False,
    ) -> tuple[list[Tensor], State]:
        """The directions of one step and the state after it; differentiable with respect to all tensors given.

        Derivatives are finite also where gradients and state are 0.

        Args:
            gradients: tensors (n, ...).
            state: as returned by `initial` or the step before.
            count: int64, number of steps taken before this one, for the bias correction: (n,), or (weights, n) if some
                weights were added later.
            momentum: (n,), coefficients in place of .9 (Adam's first beta); None for .9.
            reuse: write the state into the memory of the state before, which the directions may be views of, too; not
                for autograd.

        Raises:
            ValueError: a momentum for an optimizer without.
        """
        if momentum is not None and not self.has_momentum:
            raise ValueError(f"momentum: must be None for optimizer={self.name!r}, which has none")
        directions: list[Tensor] = []
        after: State = []
        for gradient, tensors, steps in zip(gradients, state, count.expand(len(gradients), -1), strict=True):
            decay = 0.9 if momentum is None else by_row(momentum.to(gradient.dtype), gradient)
            step = by_row((steps + 1).to(gradient.dtype), gradient)
            out = tensors[0] if reuse and tensors else None
            direction, new = self._one(gradient, tensors, step, decay, out)
            directions.append(direction)
            after.append(new)
        return directions, after

    @abstractmethod
    def _one(
        self, gradient: Tensor, state: Tensors, step: Tensor, momentum: Tensor | float, out: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        """Direction and new state of one weight.

        `step` counts from 1 and broadcasts to the gradient. The first state tensor is written into `out`, if given.
        """


class Sgd(Optimizer):
    """Gradient descent, `torch.optim.SGD`: the direction is the gradient."""

    name = "sgd"

    def _one(
        self, gradient: Tensor, state: Tensors, step: Tensor, momentum: Tensor | float, out: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        return gradient, ()


class Momentum(Optimizer):
    """`torch.optim.SGD(momentum=0.9)`, without dampening (Sutskever et al. 2013)."""

    name = "momentum"
    tensors = 1
    has_momentum = True

    def _one(
        self, gradient: Tensor, state: Tensors, step: Tensor, momentum: Tensor | float, out: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        if isinstance(momentum, Tensor):
            velocity = torch.add(torch.mul(state[0], momentum, out=out), gradient, out=out)
        else:  # in one pass
            velocity = torch.add(gradient, state[0], alpha=momentum, out=out)
        return velocity, (velocity,)


class Adam(Optimizer):
    """`torch.optim.Adam` with its defaults, betas .9 and .999 (Kingma and Ba 2015, arXiv:1412.6980)."""

    name = "adam"
    tensors = 2
    has_momentum = True
    beta = 0.999

    def _one(
        self, gradient: Tensor, state: Tensors, step: Tensor, momentum: Tensor | float, out: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        mean = torch.lerp(state[0], gradient, 1.0 - momentum, out=out)
        square = torch.addcmul(state[1] * self.beta, gradient, gradient, value=1.0 - self.beta)
        # 1 - beta^step by expm1, which float32 does not round away.
        decay = momentum.log() if isinstance(momentum, Tensor) else math.log(momentum)
        correction = torch.expm1(step * decay).neg()
        scale = correction / torch.expm1(step * math.log(self.beta)).neg().sqrt()
        return mean / torch.addcmul(correction * EPSILON, _root(square), scale), (mean, square)


class RmsProp(Optimizer):
    """`torch.optim.RMSprop` with its defaults, alpha .99 (Tieleman and Hinton 2012)."""

    name = "rmsprop"
    tensors = 1
    alpha = 0.99

    def _one(
        self, gradient: Tensor, state: Tensors, step: Tensor, momentum: Tensor | float, out: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        square = torch.addcmul(
            torch.mul(state[0], self.alpha, out=out), gradient, gradient, value=1.0 - self.alpha, out=out
        )
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


@dataclass
class OptimizerState:
    """What an optimizer keeps of n networks from step to step.

    Attributes:
        tensors: state of each weight, in the order of `Weights.tensors`; zeros for empty slots.
        taken: (positions, n) int64, number of steps that the weights of each position have taken; 0 for empty slots.
    """

    tensors: State
    taken: Tensor

    @staticmethod
    def initial(optimizer: Optimizer, weights: Weights) -> OptimizerState:
        """Before the first step: zeros."""
        tensors = weights.tensors()
        taken = torch.zeros((len(weights.positions), len(tensors[0])), dtype=torch.int64, device=tensors[0].device)
        return OptimizerState(optimizer.initial(tensors), taken)

    def flat(self) -> list[Tensor]:
        """The state tensors, each (n, ...)."""
        return [tensor for tensors in self.tensors for tensor in tensors]


def find_directions(
    optimizer: Optimizer,
    gradient: Weights,
    state: OptimizerState,
    *,
    norms: Tensor,
    clip: float | None,
    present: Tensor,
    step_sizes: Tensor,
) -> tuple[Weights, OptimizerState]:
    """The directions of a step of n networks, from clipped gradients, and the optimizer's state after it.

    Weights of a layer have their own number of steps, counted from when it was appended, as parameters that are added
    to an optimizer of torch later (`add_param_group`).

    Args:
        optimizer: one of `OPTIMIZERS`.
        gradient: gradients of n networks, 0 for empty slots.
        state: before the step.
        norms: `gradient_norms(gradient)`.
        clip: largest norm of a network's whole gradient; None for no limit.
        present: (positions, n) bool, positions that hold a layer; stem and head always do.
        step_sizes: (n,), or (positions, n) for one at each position; the state of a network stays where all are 0.
    """
    positions = [index for index, position in enumerate(gradient.positions) for _ in position]
    gradients = gradient.tensors() if clip is None else clipped(gradient, norms, clip).tensors()
    directions, tensors = optimizer.direction(gradients, state.tensors, count=state.taken[positions])
    moving = step_sizes != 0.0 if step_sizes.ndim == 1 else (step_sizes != 0.0).any(dim=0)
    if not moving.all():
        pairs = zip(tensors, state.tensors, strict=True)
        tensors = [
            tuple([new.where(by_row(moving, new), old) for new, old in zip(after, before, strict=True)])
            for after, before in pairs
        ]
    return gradient.like(directions), OptimizerState(tensors, state.taken + (present & moving))


def present_positions(depth: Tensor, slots: int) -> Tensor:
    """Which positions of networks of this depth (n,) hold a layer: stem, slots and head, (slots + 2, n) bool."""
    position = torch.arange(slots + 2, device=depth.device).unsqueeze(1)
    return (position <= depth) | (position == slots + 1)

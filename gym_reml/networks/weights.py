"""Fast weights of n networks by position and name, gradient norms, and a clipped gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

CLIP = 10.0
"""Default norm at which gradients of the inner loop are clipped."""

LONGEST = 1e18
"""Largest norm whose square cannot overflow float32 (about 3e38)."""

LARGE_STEP = 1e5
"""Longest gradient step, before learned rates, that keeps finite weights finite; see `storage.LARGEST`."""


@dataclass
class Weights:
    """Weights (or gradients, or learned step sizes) of n networks.

    Attributes:
        positions: for the stem, the slots in order, and the head: tensors (n, ...) by name, of at least two dimensions.
            A position holds only tensors that are adapted, so it may be empty.
        views: an architecture's cache of views of the tensors; never copied or pickled.
    """

    positions: list[dict[str, Tensor]]
    views: Any = field(default=None, repr=False, compare=False)

    def tensors(self) -> list[Tensor]:
        """All tensors, position by position."""
        return [tensor for position in self.positions for tensor in position.values()]

    def like(self, tensors: Sequence[Tensor]) -> Weights:
        """The same structure with other tensors, given in the order of `tensors()`."""
        remaining = iter(tensors)
        return Weights([{name: next(remaining) for name in position} for position in self.positions])

    def __reduce__(self) -> tuple[type[Weights], tuple[list[dict[str, Tensor]]]]:
        # Without the views: after unpickling they would no longer share memory with the tensors. Of parts of a larger
        # tensor copies, with which pickle would write the whole of it.
        own = [
            tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
            for tensor in self.tensors()
        ]
        return (Weights, (self.like(own).positions,))


def gradient_norms(gradient: Weights) -> Tensor:
    """Euclidean norm of each position's gradient (stem, slots, head), (positions, n)."""
    last = gradient.tensors()[-1]
    lengths = []
    for position in gradient.positions:
        norms = [
            vector_norm(tensor, dim=(1, 2) if tensor.ndim == 3 else tuple(range(1, tensor.ndim)))
            for tensor in position.values()
        ]
        if len(norms) == 1:
            lengths.append(norms[0])
        elif norms:
            # Not hypot, whose derivative at (0, 0), an empty slot, is NaN.
            lengths.append(vector_norm(torch.stack(norms), dim=0))
        else:
            lengths.append(last.new_zeros(len(last)))
    return torch.stack(lengths)


def without_overflow(gradient: Weights, norms: Tensor) -> tuple[Weights, Tensor]:
    """The gradient and its norms, scaled down in rows whose norm could overflow although all elements are finite.

    The clipped gradient depends only on the direction, so any norm far above the clipping threshold will do. Rows with
    infinities or NaN keep a norm that is not finite.

    Args:
        gradient: gradients of n networks.
        norms: `gradient_norms(gradient)`.
    """
    short = norms <= LONGEST
    if short.all():
        return gradient, norms
    gradients = gradient.tensors()
    largest = torch.stack([tensor.detach().abs().flatten(1).amax(dim=1) for tensor in gradients]).amax(dim=0)
    long = ~short.all(dim=0) & largest.isfinite()
    factor = (1e10 / largest).where(long, torch.ones_like(largest))
    scaled = gradient.like([tensor * by_row(factor, tensor) for tensor in gradients])
    return scaled, gradient_norms(scaled)


def within_range(gradient: Weights, norms: Tensor, clip: float | None) -> tuple[Weights, Tensor, float]:
    """`without_overflow`, where gradients will be clipped and one of them needs it: a faster check, for stepping.

    Returns:
        The gradient, its norms, and the sum of all norms given, for which a device has been waited.
    """
    together = float(np.add.reduce(norms.cpu().numpy(), axis=None))
    if clip is None or together <= LONGEST:
        return gradient, norms, together
    return *without_overflow(gradient, norms), together


def clipped(gradient: Weights, norms: Tensor, clip: float) -> Weights:
    """The gradient of each network, scaled down to norm `clip` if it is longer; `norms`: `gradient_norms(gradient)`."""
    # Where nothing is clipped, the clamp makes the factor exactly 1, with derivative 0.
    factor = clip / vector_norm(norms, dim=0).clamp_min(clip)
    return gradient.like([tensor * by_row(factor, tensor) for tensor in gradient.tensors()])


def descend(
    weights: Weights,
    gradient: Weights,
    *,
    norms: Tensor,
    step_sizes: Tensor,
    clip: float | None = CLIP,
    rates: Weights | None = None,
    out: Weights | None = None,
) -> Weights:
    """One step of each network: w - step_size * rate * g, with g clipped to norm `clip` per network.

    Args:
        weights: of n networks.
        gradient: their gradients, or the directions that an optimizer makes of them.
        norms: `gradient_norms(gradient)`.
        step_sizes: (n,), or (positions, n) for one at each position.
        clip: largest norm of a network's whole gradient; None for no limit.
        rates: learned step sizes, broadcastable to the weights, or None for 1.
        out: written with the new weights (stepping), or None for new differentiable tensors.

    Returns:
        The new weights.
    """
    if clip is None:
        scaled_sizes, clip = step_sizes, 1.0
    else:
        # Where nothing is clipped, the clamp makes the factor exactly 1, with derivative 0.
        scaled_sizes = step_sizes / vector_norm(norms, dim=0).clamp_min(clip)
    old_tensors, gradients, scales = weights.tensors(), gradient.tensors(), scales_of(weights, scaled_sizes)
    factors = scales if rates is None else [scale * rate for scale, rate in zip(scales, rates.tensors(), strict=True)]
    targets = [None] * len(old_tensors) if out is None else out.tensors()
    rows = zip(old_tensors, gradients, factors, targets, strict=True)
    new_tensors = [torch.addcmul(old, tensor, factor, value=-clip, out=new) for old, tensor, factor, new in rows]
    return weights.like(new_tensors) if out is None else out


def scales_of(weights: Weights, sizes: Tensor) -> list[Tensor]:
    """Step sizes (n,), or (positions, n), for each tensor of the weights, to broadcast over it."""
    if sizes.ndim == 1:
        matrices = sizes.reshape(-1, 1, 1)
        return [matrices if tensor.ndim == 3 else by_row(sizes, tensor) for tensor in weights.tensors()]
    by_position = zip(sizes, weights.positions, strict=True)
    return [by_row(own, tensor) for own, position in by_position for tensor in position.values()]


def by_row(values: Tensor, like: Tensor) -> Tensor:
    """Values (n,) reshaped to broadcast over the other dimensions of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))

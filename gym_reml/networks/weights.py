"""Fast weights of n networks, by position and name: their norms, and one clipped gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

CLIP_NORM = 10.0
LONGEST = 1e18
"""Gradients up to this norm have a length that float32 can hold: squares must stay below 3e38."""


@dataclass
class Weights:
    """Weights (or gradients, or learned step sizes) of n networks.

    Attributes:
        positions: of the stem, the slots in order, and the head: tensors (n, ...) by name, of at least two dimensions.
            A position holds what is adapted there, which may be nothing.
        views: what an architecture keeps beside the tensors to compute faster; it is never copied or pickled.
    """

    positions: list[dict[str, Tensor]]
    views: Any = field(default=None, repr=False, compare=False)

    def tensors(self) -> list[Tensor]:
        """All tensors, position by position."""
        return [tensor for position in self.positions for tensor in position.values()]

    def like(self, tensors: Sequence[Tensor]) -> Weights:
        """The same structure around other tensors, given in the order of `tensors()`."""
        remaining = iter(tensors)
        return Weights([{name: next(remaining) for name in position} for position in self.positions])

    def __reduce__(self) -> tuple[type[Weights], tuple[list[dict[str, Tensor]]]]:
        # Without the views: pickled, they would come back as tensors of their own.
        return (Weights, (self.positions,))


def gradient_norms(gradient: Weights) -> Tensor:
    """Euclidean norm of each position's gradient (stem, slots, head), (positions, n)."""
    some = gradient.tensors()[-1]
    lengths = []
    for position in gradient.positions:
        norms = [
            vector_norm(tensor, dim=(1, 2) if tensor.ndim == 3 else tuple(range(1, tensor.ndim)))
            for tensor in position.values()
        ]
        if len(norms) == 1:
            lengths.append(norms[0])
        elif norms:
            # Not hypot, whose derivative at (0, 0), an empty slot, is not a number.
            lengths.append(vector_norm(torch.stack(norms), dim=0))
        else:
            lengths.append(some.new_zeros(len(some)))
    return torch.stack(lengths)


def without_overflow(gradient: Weights, norms: Tensor) -> tuple[Weights, Tensor]:
    """The gradient and its norms, scaled down in the rows whose length may be infinite although their numbers are not.

    What clipping makes of such a gradient does not depend on its length, so it may be any that is far above the clip.
    Rows with infinities or NaN keep a norm that is not finite.

    Args:
        gradient: of n networks.
        norms: `gradient_norms(gradient)`.
    """
    short = norms <= LONGEST
    if short.all():
        return gradient, norms
    slopes = gradient.tensors()
    largest = torch.stack([slope.detach().abs().flatten(1).amax(dim=1) for slope in slopes]).amax(dim=0)
    long = ~short.all(dim=0) & largest.isfinite()
    factor = (1e10 / largest).where(long, torch.ones_like(largest))
    scaled = gradient.like([slope * _by_row(factor, slope) for slope in slopes])
    return scaled, gradient_norms(scaled)


def descend(
    weights: Weights,
    gradient: Weights,
    *,
    norms: Tensor,
    step_sizes: Tensor,
    rates: Weights | None = None,
    out: Weights | None = None,
) -> Weights:
    """One gradient step of each network: w - step_size * rate * g, with g clipped to norm 10 per network.

    Args:
        weights, gradient: of n networks.
        norms: `gradient_norms(gradient)`.
        step_sizes: (n,).
        rates: learned step sizes, broadcastable to the weights, or None for 1.
        out: where to write the new weights (stepping), or None for new differentiable tensors.
    """
    # The clamp makes the factor exactly 1, with derivative 0, wherever nothing is clipped.
    length = vector_norm(norms, dim=0).clamp_min(CLIP_NORM)
    shares = step_sizes / length
    olds, slopes = weights.tensors(), gradient.tensors()
    matrices = shares.reshape(-1, 1, 1)
    scales = [matrices if old.ndim == 3 else _by_row(shares, old) for old in olds]
    factors = scales if rates is None else [scale * rate for scale, rate in zip(scales, rates.tensors(), strict=True)]
    targets = [None] * len(olds) if out is None else out.tensors()
    rows = zip(olds, slopes, factors, targets, strict=True)
    news = [torch.addcmul(old, slope, factor, value=-CLIP_NORM, out=new) for old, slope, factor, new in rows]
    return weights.like(news) if out is None else out


def _by_row(values: Tensor, like: Tensor) -> Tensor:
    """Values (n,) as a tensor that is broadcast over the other dimensions of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))

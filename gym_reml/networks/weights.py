"""Fast weights of n networks, by position: their norms, and one clipped gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm


@dataclass
class Weights:
    """Weights (or gradients, or rates) of n networks: stem, slots in order, head.

    Attributes:
        matrices: each (n, in + 1, out), the last row the bias. The stem is None where it is not adapted.
        norms: gain and shift of stem and slots, each (n, 2, width); empty where there are none, or none that adapt.
        constant_outputs: how many outputs, the last ones, depend on the head's bias alone.
    """

    matrices: list[Tensor | None]
    norms: list[Tensor] = field(default_factory=list)
    constant_outputs: int = 0

    def tensors(self) -> list[Tensor]:
        """All tensors that exist, matrices first."""
        return [matrix for matrix in self.matrices if matrix is not None] + self.norms

    def like(self, tensors: Sequence[Tensor]) -> Weights:
        """The same structure around other tensors, given in the order of `tensors()`."""
        remaining = iter(tensors)
        matrices = [None if matrix is None else next(remaining) for matrix in self.matrices]
        return Weights(matrices, list(remaining), self.constant_outputs)

    @cached_property
    def reversed(self) -> list[Tensor]:
        """What takes gradients back through slots and head: their matrices transposed, without the bias."""
        return [matrix[:, :-1].transpose(1, 2) for matrix in self.matrices[1:] if matrix is not None]

    @cached_property
    def turned_head(self) -> Tensor:
        """The head's matrix transposed, with the bias."""
        head = self.matrices[-1]
        assert head is not None
        return head.transpose(1, 2)

    def __reduce__(self) -> tuple[type[Weights], tuple[list[Tensor | None], list[Tensor], int]]:
        # Without the views: pickled, they would come back as tensors of their own.
        return (Weights, (self.matrices, self.norms, self.constant_outputs))


def without_inputs(head: Tensor, constant_outputs: int) -> Tensor:
    """The head's matrix (..., width + 1, out) with zeros where it would lead from activations to constant outputs."""
    mask = torch.ones(head.shape[-2:], dtype=head.dtype, device=head.device)
    mask[:-1, head.shape[-1] - constant_outputs :] = 0.0
    return head * mask


CLIP_NORM = 10.0
LONGEST = 1e18
"""Gradients up to this norm have a length that float32 can hold: squares must stay below 3e38."""


def gradient_norms(gradient: Weights) -> Tensor:
    """Euclidean norm of each position's gradient (stem, slots, head), (positions, n)."""
    head = gradient.matrices[-1]
    assert head is not None
    nothing = head.new_zeros(len(head))
    lengths = [nothing if matrix is None else vector_norm(matrix, dim=(1, 2)) for matrix in gradient.matrices]
    for position, norm in enumerate(gradient.norms):
        both = torch.stack([lengths[position], vector_norm(norm, dim=(1, 2))])
        # Not hypot, whose derivative at (0, 0), an empty slot, is not a number.
        lengths[position] = vector_norm(both, dim=0)
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
    largest = torch.stack([slope.detach().abs().amax(dim=(1, 2)) for slope in slopes]).amax(dim=0)
    long = ~short.all(dim=0) & largest.isfinite()
    factor = (1e10 / largest).where(long, torch.ones_like(largest)).reshape(-1, 1, 1)
    scaled = gradient.like([slope * factor for slope in slopes])
    return scaled, gradient_norms(scaled)


def descend(
    weights: Weights,
    gradient: Weights,
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
    scale = (step_sizes / length).reshape(-1, 1, 1)
    olds, slopes = weights.tensors(), gradient.tensors()
    factors = [scale] * len(olds) if rates is None else [scale * rate for rate in rates.tensors()]
    targets = [None] * len(olds) if out is None else out.tensors()
    rows = zip(olds, slopes, factors, targets, strict=True)
    news = [torch.addcmul(old, slope, factor, value=-CLIP_NORM, out=new) for old, slope, factor, new in rows]
    return weights.like(news) if out is None else out

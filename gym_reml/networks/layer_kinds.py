"""Layer kinds: what a layer does with its pre-activations, and the derivative of it by hand."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

NORM_EPSILON = 1e-5

Saved = tuple[Tensor, ...]
Derivatives = tuple[Tensor, "Tensor | None"]


class LayerKind:
    """What a layer does with its pre-activations z = x W + b, and the derivative of it.

    Attributes:
        skip: the layer adds its input to its output. A layer of zeros then passes its input on, exactly, and its
            gradient is exactly zero: slots that hold zeros need no mask.
        normalised: the layer has a gain and a shift, the norm (n, 2, width), applied after normalisation.
        across_points: what a point becomes depends on the other points of the pass, so that support and query set need
            passes of their own.
    """

    name: ClassVar[str]
    skip: ClassVar[bool] = False
    normalised: ClassVar[bool] = False
    across_points: ClassVar[bool] = False

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        """Activations (n, points, width) and what `backward` will want to know."""
        raise NotImplementedError

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        """Derivatives by z and by the norm, from the derivative by the activations."""
        raise NotImplementedError


_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def relu(x: Tensor, out: Tensor | None) -> Tensor:
    """max(x, 0), by whichever of torch's two is fast: only one takes buffers, only the other has a cheap derivative."""
    return torch.relu(x) if out is None else torch.clamp_min(x, 0.0, out=out)


class Relu(LayerKind):
    """relu(x W + b)."""

    name = "relu"

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        return relu(z, out), (z,)

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        if out is None:
            return torch.ops.aten.threshold_backward(upstream, saved[0], 0), None
        return _threshold_backward(upstream, saved[0], 0, grad_input=out), None


class Residual(Relu):
    """x + relu(x W + b). An empty slot and a layer of zeros are the same thing."""

    name = "residual"
    skip = True


class Tanh(LayerKind):
    """tanh(x W + b)."""

    name = "tanh"

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        activations = torch.tanh(z, out=out)
        return activations, (activations,)

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        return upstream * (1.0 - saved[0].square()), None


class _Normalised(LayerKind):
    """relu(gain normalise(x W + b) + shift), normalised over one axis of (n, points, width)."""

    normalised = True
    axis: ClassVar[int]

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        assert norm is not None
        centred = z - z.mean(dim=self.axis, keepdim=True)
        scale = (centred.square().mean(dim=self.axis, keepdim=True) + NORM_EPSILON).rsqrt()
        return self._activate(centred * scale, scale, norm, out)

    def _activate(self, unit: Tensor, scale: Tensor, norm: Tensor, out: Tensor | None) -> tuple[Tensor, Saved]:
        affine = torch.addcmul(norm[:, 1:2], unit, norm[:, :1])
        return relu(affine, out), (affine, unit, scale)

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        by_unit, by_norm = self._by_unit(upstream, saved, norm)
        _, unit, scale = saved
        along = (by_unit * unit).mean(dim=self.axis, keepdim=True)
        return (by_unit - by_unit.mean(dim=self.axis, keepdim=True) - unit * along) * scale, by_norm

    def _by_unit(self, upstream: Tensor, saved: Saved, norm: Tensor | None) -> tuple[Tensor, Tensor]:
        """Derivatives by what was normalised, and by gain and shift."""
        assert norm is not None
        affine, unit, _ = saved
        inner = torch.ops.aten.threshold_backward(upstream, affine, 0)
        by_norm = torch.stack([(inner * unit).sum(dim=1), inner.sum(dim=1)], dim=1)
        return inner * norm[:, :1], by_norm


class LayerNorm(_Normalised):
    """relu(gain normalise(x W + b) + shift), normalised over the layer's units (Ba et al. 2016)."""

    name = "layer_norm"
    axis = -1


class BatchNorm(_Normalised):
    """relu(gain normalise(x W + b) + shift), each unit normalised over the points of the pass (Ioffe & Szegedy 2015).

    A norm of four rows brings the statistics along: gain, shift, mean, variance. Points then do not see each other.
    """

    name = "batch_norm"
    axis = 1
    across_points = True

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        if norm is None or norm.shape[1] == 2:
            return super().forward(z, norm, out)
        scale = (norm[:, 3:] + NORM_EPSILON).rsqrt()
        return self._activate((z - norm[:, 2:3]) * scale, scale, norm, out)

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        if norm is None or norm.shape[1] == 2:
            return super().backward(upstream, saved, norm, out)
        by_unit, by_norm = self._by_unit(upstream, saved, norm)
        return by_unit * saved[2], by_norm


LAYER_KINDS: dict[str, LayerKind] = {kind.name: kind for kind in (Relu(), Tanh(), Residual(), LayerNorm(), BatchNorm())}
"""The layer kinds by name. A new kind is a class above and a row here."""


def find_kind(name: str) -> LayerKind:
    """The layer kind of that name, or a ValueError that lists the choices."""
    if not isinstance(name, str) or name not in LAYER_KINDS:
        raise ValueError(f"layer_kind={name!r}: must be one of {', '.join(map(repr, LAYER_KINDS))}")
    return LAYER_KINDS[name]

"""Layer kinds: what a layer does with its pre-activations, and its hand-written derivative."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

NORM_EPSILON = 1e-5

Saved = tuple[Tensor, ...]
Derivatives = tuple[Tensor, "Tensor | None"]


class LayerKind:
    """What a layer does with its pre-activations z = x W + b, and its derivative.

    Attributes:
        skip: the layer adds its input to its output. A layer of zeros is then exactly the identity, with a gradient of
            exactly zero, so slots that hold zeros need no mask.
        normalised: the layer has a gain and a shift, the norm (n, 2, width), applied after normalisation.
        across_points: the output at a point depends on the other points of the pass (batch statistics), so support and
            query set need separate passes.
    """

    name: ClassVar[str]
    skip: ClassVar[bool] = False
    normalised: ClassVar[bool] = False
    across_points: ClassVar[bool] = False

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        """Activations (n, points, width), and the tensors that `backward` needs."""
        raise NotImplementedError

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        """Gradients with respect to z and to the norm (None without one), from that with respect to the activations."""
        raise NotImplementedError


_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def relu(x: Tensor, out: Tensor | None) -> Tensor:
    """max(x, 0). Of torch's two functions only `clamp_min` writes to buffers; `relu` has the cheaper derivative."""
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
    """x + relu(x W + b) (skip connections: He et al. 2015, arXiv:1512.03385). A layer of zeros is the identity."""

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
    """relu(gain * normalise(x W + b) + shift), normalised over one axis of (n, points, width)."""

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
        unit_gradient, norm_gradient = self._affine_gradient(upstream, saved, norm)
        _, unit, scale = saved
        mean, projection = (part.mean(dim=self.axis, keepdim=True) for part in (unit_gradient, unit_gradient * unit))
        return (unit_gradient - mean - unit * projection) * scale, norm_gradient

    def _affine_gradient(self, upstream: Tensor, saved: Saved, norm: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients with respect to the normalised values, and to gain and shift."""
        assert norm is not None
        affine, unit, _ = saved
        inner = torch.ops.aten.threshold_backward(upstream, affine, 0)
        norm_gradient = torch.stack([(inner * unit).sum(dim=1), inner.sum(dim=1)], dim=1)
        return inner * norm[:, :1], norm_gradient


class LayerNorm(_Normalised):
    """relu(gain * normalise(x W + b) + shift), normalised over the layer's units (Ba et al. 2016, arXiv:1607.06450)."""

    name = "layer_norm"
    axis = -1


class BatchNorm(_Normalised):
    """relu(gain * normalise(x W + b) + shift), each unit normalised over the points of the pass.

    A norm of four rows, gain, shift, mean and variance, replaces the statistics of the pass by given ones: points are
    then independent. Ioffe & Szegedy 2015, arXiv:1502.03167.
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
        unit_gradient, norm_gradient = self._affine_gradient(upstream, saved, norm)
        return unit_gradient * saved[2], norm_gradient


LAYER_KINDS: dict[str, LayerKind] = {kind.name: kind for kind in (Relu(), Tanh(), Residual(), LayerNorm(), BatchNorm())}
"""Layer kinds by name. To add one, write a class above and add it here."""

"""The batched core: n sub-networks side by side, each with its own weights, their exact gradients by hand.

Every layer is one matrix whose last row is the bias, (n, in + 1, out); inputs carry a column of ones. The same
functions serve stepping (no graph, reused buffers) and replay (autograd runs *through* the hand-written gradient, which
gives the exact second-order meta-gradient without double backward).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

NORM_EPSILON = 1e-5


class Workspace:
    """Buffers by name, made once and reused: fresh allocations are what a small step would otherwise wait for."""

    def __init__(self) -> None:
        self._buffers: dict[Any, Tensor] = {}

    def take(self, key: Any, shape: tuple[int, ...], like: Tensor, fill: float = 0.0) -> Tensor:
        """The buffer of that name; made anew, filled with `fill`, when its shape or device changed."""
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != shape or buffer.device != like.device:
            buffer = self._buffers[key] = torch.full(shape, fill, dtype=like.dtype, device=like.device)
        return buffer

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        # Copies and pickles start with empty buffers: they hold nothing that cannot be computed again.
        return (Workspace, ())


class LayerKind:
    """What a layer does with its pre-activations z = x W + b, and the derivative of it.

    Attributes:
        skip: the layer adds its input to its output. A layer of zeros then passes its input on, exactly, and its
            gradient is exactly zero: slots that hold zeros need no mask.
        normalised: the layer has a gain and a shift, (n, 2, width), applied after layer normalisation.
    """

    name: ClassVar[str]
    skip: ClassVar[bool] = False
    normalised: ClassVar[bool] = False

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Activations (n, points, width) and what `backward` will want to know."""
        raise NotImplementedError

    def backward(
        self, upstream: Tensor, saved: tuple[Tensor, ...], norm: Tensor | None, out: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Derivatives by z and by the norm, from the derivative by the activations."""
        raise NotImplementedError


class Relu(LayerKind):
    """relu(x W + b)."""

    name = "relu"

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return torch.clamp_min(z, 0.0, out=out), (z,)

    def backward(
        self, upstream: Tensor, saved: tuple[Tensor, ...], norm: Tensor | None, out: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if out is None:
            return torch.ops.aten.threshold_backward(upstream, saved[0], 0), None
        return torch.ops.aten.threshold_backward.grad_input(upstream, saved[0], 0, grad_input=out), None


class Residual(Relu):
    """x + relu(x W + b). An empty slot and a layer of zeros are the same thing."""

    name = "residual"
    skip = True


class Tanh(LayerKind):
    """tanh(x W + b)."""

    name = "tanh"

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        activations = torch.tanh(z, out=out)
        return activations, (activations,)

    def backward(
        self, upstream: Tensor, saved: tuple[Tensor, ...], norm: Tensor | None, out: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return upstream * (1.0 - saved[0].square()), None


class LayerNorm(LayerKind):
    """relu(gain normalise(x W + b) + shift), normalised over the layer's units (Ba et al. 2016)."""

    name = "layer_norm"
    normalised = True

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert norm is not None
        centred = z - z.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=-1, keepdim=True) + NORM_EPSILON).rsqrt()
        unit = centred * scale
        affine = torch.addcmul(norm[:, 1:], unit, norm[:, :1])
        return torch.clamp_min(affine, 0.0, out=out), (affine, unit, scale)

    def backward(
        self, upstream: Tensor, saved: tuple[Tensor, ...], norm: Tensor | None, out: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        assert norm is not None
        affine, unit, scale = saved
        inner = torch.ops.aten.threshold_backward(upstream, affine, 0)
        by_norm = torch.stack([(inner * unit).sum(dim=1), inner.sum(dim=1)], dim=1)
        by_unit = inner * norm[:, :1]
        along = (by_unit * unit).mean(dim=-1, keepdim=True)
        return (by_unit - by_unit.mean(dim=-1, keepdim=True) - unit * along) * scale, by_norm


LAYER_KINDS: dict[str, LayerKind] = {kind.name: kind for kind in (Relu(), Tanh(), Residual(), LayerNorm())}
"""The layer kinds by name. A new kind is a class above and a row here."""


@dataclass
class Weights:
    """Weights (or gradients, or rates) of n networks: stem, slots in order, head.

    Attributes:
        matrices: each (n, in + 1, out), the last row the bias. The stem is None where it is not adapted.
        norms: gain and shift of stem and slots, each (n, 2, width); empty for kinds without normalisation.
    """

    matrices: list[Tensor | None]
    norms: list[Tensor] = field(default_factory=list)

    def tensors(self) -> list[Tensor]:
        """All tensors that exist, matrices first."""
        return [matrix for matrix in self.matrices if matrix is not None] + self.norms

    def like(self, tensors: Sequence[Tensor]) -> Weights:
        """The same structure around other tensors, given in the order of `tensors()`."""
        remaining = iter(tensors)
        matrices = [None if matrix is None else next(remaining) for matrix in self.matrices]
        return Weights(matrices, list(remaining))


Filled = Sequence["Tensor | bool"]
"""For each slot: True or False where all rows agree whether it holds a layer, else a (n, 1, 1) bool tensor."""


@dataclass
class Trace:
    """What a forward pass leaves for the backward pass.

    Attributes:
        inputs: with a column of ones, the inputs of stem, slots and head, each (n, points, in + 1).
        saved: what the kind wants to know again, for stem and slots.
        outputs: (n, points, out).
    """

    inputs: list[Tensor]
    saved: list[tuple[Tensor, ...]]
    outputs: Tensor

    def first(self, points: int) -> Trace:
        """The part of this pass that belongs to the first points of each row."""
        saved = [tuple(tensor[:, :points] for tensor in tensors) for tensors in self.saved]
        return Trace([tensor[:, :points] for tensor in self.inputs], saved, self.outputs[:, :points])

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer, (n, points, width)."""
        return self.inputs[-1][..., :-1]


def with_ones(x: Tensor) -> Tensor:
    """x with a column of ones behind it."""
    return functional.pad(x, (0, 1), value=1.0)


def prepare(x: Tensor, frozen_stem: Tensor | None) -> Tensor:
    """Inputs as `forward` takes them, (n, points, in + 1), or the stem's pre-activations where the stem is not adapted.

    Those never change within an episode, which spares wide inputs both the products and n copies of the stem.
    """
    return with_ones(x) if frozen_stem is None else with_ones(x) @ frozen_stem


def forward(
    kind: LayerKind,
    weights: Weights,
    prepared: Tensor,
    filled: Filled,
    workspace: Workspace | None = None,
    trace: Trace | None = None,
    start: int = 0,
) -> Trace:
    """Runs the networks.

    Args:
        kind: the kind of all hidden layers.
        weights: weights of n networks.
        prepared: see `prepare`.
        filled: which slots hold a layer; empty ones pass their input on.
        workspace: buffers to use (stepping), or None for fresh differentiable tensors (replay).
        trace: an earlier pass over the same inputs, needed if `start` > 0.
        start: the first matrix that changed since then: 0 is the stem, 1 the first slot.
    """
    slots = len(weights.matrices) - 2
    if start == 0:
        stem, norm = weights.matrices[0], weights.norms[0] if weights.norms else None
        z = prepared if stem is None else torch.bmm(prepared, stem, out=_product(workspace, 0, prepared, stem))
        hidden, saved = kind.forward(z, norm, _hidden(workspace, 0, z))
        inputs, everything_saved = [prepared, _augment(workspace, 0, hidden)], [saved]
    else:
        assert trace is not None
        inputs, everything_saved = trace.inputs[: start + 1], trace.saved[:start]
    for slot in range(max(start, 1), slots + 1):
        matrix, previous, present = weights.matrices[slot], inputs[slot], filled[slot - 1]
        assert matrix is not None
        if present is False:
            inputs.append(previous)
            everything_saved.append(())
            continue
        z = torch.bmm(previous, matrix, out=_product(workspace, slot, previous, matrix))
        target = _hidden(workspace, slot, z)
        hidden, saved = kind.forward(z, weights.norms[slot] if weights.norms else None, target)
        if kind.skip:
            hidden = torch.add(hidden, previous[..., :-1], out=target)
        if isinstance(present, Tensor):
            hidden = torch.where(present, hidden, previous[..., :-1], out=target)
        inputs.append(_augment(workspace, slot, hidden))
        everything_saved.append(saved)
    head = weights.matrices[-1]
    assert head is not None
    # Few outputs: the transposed product is several times faster than the direct one.
    left, right = head.transpose(1, 2), inputs[-1].transpose(1, 2)
    outputs = torch.bmm(left, right, out=_product(workspace, slots + 1, left, right)).transpose(1, 2)
    return Trace(inputs, everything_saved, outputs)


def backward(
    kind: LayerKind,
    weights: Weights,
    trace: Trace,
    output_gradient: Tensor,
    filled: Filled,
    workspace: Workspace | None = None,
) -> Weights:
    """Gradients of the n losses by the n networks' weights; zero for empty slots.

    Args:
        kind, weights, filled: as given to `forward`.
        trace: what it returned.
        output_gradient: derivative of the losses by the outputs, (n, points, out).
        workspace: buffers (those of an earlier call are overwritten), or None for differentiable tensors.
    """
    slots = len(weights.matrices) - 2
    matrices: list[Tensor | None] = [None] * (slots + 2)
    norms: list[Tensor] = []
    by_z = output_gradient
    upstream: Tensor | None = None
    for position in range(slots + 1, -1, -1):
        matrix = weights.matrices[position]
        if position <= slots:
            assert upstream is not None
            present = True if position == 0 else filled[position - 1]
            if present is False:
                assert matrix is not None
                matrices[position] = (
                    torch.zeros_like(matrix) if workspace is None else _zeros(workspace, position, matrix)
                )
                if weights.norms:
                    norms.insert(0, torch.zeros_like(weights.norms[position]))
                continue
            norm = weights.norms[position] if weights.norms else None
            target = None if workspace is None else workspace.take(("by_z", position), upstream.shape, upstream)
            by_z, by_norm = kind.backward(upstream, trace.saved[position], norm, target)
            if isinstance(present, Tensor):
                by_z = torch.mul(by_z, present, out=target)
            if by_norm is not None:
                norms.insert(0, by_norm * present)
        if matrix is None:
            break
        inputs = trace.inputs[position]
        if position > slots:
            matrices[position] = by_head(trace, by_z)
        else:
            target = None if workspace is None else workspace.take(("gradient", position), matrix.shape, matrix)
            matrices[position] = torch.bmm(inputs.transpose(1, 2), by_z, out=target)
        if position == 0:
            break
        shape = (inputs.shape[0], inputs.shape[1], matrix.shape[1] - 1)
        target = None if workspace is None else workspace.take(("by_input", position), shape, matrix)
        by_input = torch.bmm(by_z, matrix[:, :-1].transpose(1, 2), out=target)
        if 0 < position <= slots:
            if kind.skip:
                by_input = torch.add(by_input, upstream, out=target)
            elif isinstance(filled[position - 1], Tensor):
                by_input = torch.where(filled[position - 1], by_input, upstream, out=target)
        upstream = by_input
    return Weights(matrices, norms)


def by_head(trace: Trace, output_gradient: Tensor) -> Tensor:
    """Gradients by the head's matrix, (n, width + 1, out): the sum over points of activation x output gradient."""
    return torch.bmm(output_gradient.transpose(1, 2), trace.inputs[-1]).transpose(1, 2)


def _product(workspace: Workspace | None, position: int, left: Tensor, right: Tensor) -> Tensor | None:
    shape = (left.shape[0], left.shape[1], right.shape[2])
    return None if workspace is None else workspace.take(("z", position), shape, left)


def _hidden(workspace: Workspace | None, position: int, z: Tensor) -> Tensor | None:
    """Where the activations go: all but the last column of a buffer whose last column is ones."""
    if workspace is None:
        return None
    return workspace.take(("hidden", position), (z.shape[0], z.shape[1], z.shape[2] + 1), z, fill=1.0)[..., :-1]


def _augment(workspace: Workspace | None, position: int, hidden: Tensor) -> Tensor:
    if workspace is None:
        return with_ones(hidden)
    shape = (hidden.shape[0], hidden.shape[1], hidden.shape[2] + 1)
    return workspace.take(("hidden", position), shape, hidden, fill=1.0)


def _zeros(workspace: Workspace, position: int, like: Tensor) -> Tensor:
    return workspace.take(("zeros", position), like.shape, like)


CLIP_NORM = 10.0


def gradient_norms(gradient: Weights) -> Tensor:
    """Euclidean norm of each position's gradient (stem, slots, head), (positions, n)."""
    head = gradient.matrices[-1]
    assert head is not None
    nothing = head.new_zeros(len(head))
    by_position = [
        nothing if matrix is None else torch.linalg.vector_norm(matrix, dim=(1, 2)) for matrix in gradient.matrices
    ]
    for position, norm in enumerate(gradient.norms):
        by_position[position] = torch.hypot(torch.linalg.vector_norm(norm, dim=(1, 2)), by_position[position])
    return torch.stack(by_position)


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
    length = torch.linalg.vector_norm(norms, dim=0).clamp_min(CLIP_NORM)
    scale = (step_sizes * -CLIP_NORM / length).reshape(-1, 1, 1)
    olds, slopes = weights.tensors(), gradient.tensors()
    factors = [scale] * len(olds) if rates is None else [scale * rate for rate in rates.tensors()]
    targets = [None] * len(olds) if out is None else out.tensors()
    rows = zip(olds, slopes, factors, targets, strict=True)
    return weights.like([torch.addcmul(old, slope, factor, out=new) for old, slope, factor, new in rows])

"""The batched core: n sub-networks side by side, each with its own weights, their exact gradients by hand.

Every layer is one matrix whose last row is the bias, (n, in + 1, out); inputs carry a column of ones. The same
functions serve stepping (no graph, reused buffers) and replay (autograd runs *through* the hand-written gradient, which
gives the exact second-order meta-gradient without double backward).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm

from gym_reml.kinds import LayerKind, Saved
from gym_reml.workspace import Activations, Workspace, constant

FEW_ROWS = 8  # where one call fewer still matters more than how fast it is


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


Filled = Sequence["Tensor | bool"]
"""For each slot: True or False where all rows agree whether it holds a layer, else a (n, 1, 1) bool tensor."""


@dataclass
class Trace:
    """What a forward pass leaves for the backward pass.

    Attributes:
        inputs: of stem, slots and head.
        saved: what the kind wants to know again, for stem and slots.
        outputs: (n, points, out).
        norms: of stem and slots, as they were used; empty for kinds without normalisation.
    """

    inputs: list[Activations]
    saved: list[Saved]
    outputs: Tensor
    norms: list[Tensor]

    def first(self, points: int, workspace: Workspace | None = None) -> Trace:
        """The part of this pass, through that workspace, that belongs to the first points of each row.

        Not for kinds that look across points: theirs would have been another pass.
        """
        views = Activations if workspace is None else workspace.views
        saved = [tuple([views(tensor).first(points).tensor for tensor in tensors]) for tensors in self.saved]
        outputs = views(self.outputs).first(points).tensor
        return Trace([inputs.first(points) for inputs in self.inputs], saved, outputs, self.norms)

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer, (n, points, width)."""
        return self.inputs[-1].body


def with_ones(x: Tensor) -> Tensor:
    """x with a column of ones behind it."""
    return torch.cat([x, constant(1.0, x, (*x.shape[:-1], 1))], dim=-1)


def prepare(x: Tensor, frozen_stem: Tensor | None) -> Tensor:
    """Inputs as `forward` takes them, (n, points, in + 1), or the stem's pre-activations where the stem is not adapted.

    Those never change within an episode, which spares wide inputs both the products and n copies of the stem.
    """
    return with_ones(x) if frozen_stem is None else with_ones(x) @ frozen_stem


def forward(
    kind: LayerKind,
    weights: Weights,
    prepared: Tensor | Activations,
    filled: Filled,
    workspace: Workspace | None = None,
    trace: Trace | None = None,
    start: int = 0,
    norms: list[Tensor] | None = None,
) -> Trace:
    """Runs the networks.

    Args:
        kind: the kind of all hidden layers.
        weights: weights of n networks.
        prepared: see `prepare`; not looked at if `start` > 0.
        filled: which slots hold a layer; empty ones pass their input on.
        workspace: buffers to use (stepping), or None for fresh differentiable tensors (replay).
        trace: an earlier pass over the same inputs, needed if `start` > 0.
        start: the first matrix that changed since then: 0 is the stem, 1 the first slot.
        norms: what `LayerKind.forward` takes for stem and slots, where that is not the weights' own.
    """
    norms = weights.norms if norms is None else norms
    saved: list[Saved] = []
    if start == 0:
        inputs = [prepared if isinstance(prepared, Activations) else Activations(prepared)]
    else:
        assert trace is not None
        inputs, saved = trace.inputs[: start + 1], trace.saved[:start]
        norms = [*trace.norms[:start], *norms[start:]]
    for position in range(start, len(weights.matrices) - 1):
        matrix, previous, present = weights.matrices[position], inputs[position], position == 0 or filled[position - 1]
        if present is False:
            inputs.append(previous)
            saved.append(())
            continue
        z = previous.tensor  # a frozen stem's pre-activations are there already
        if matrix is not None:
            z = torch.bmm(z, matrix, out=_product(workspace, position, z, matrix))
        into = None if workspace is None else workspace.activations(position, tuple(z.shape), z)
        target = None if into is None else into.body
        hidden, known = kind.forward(z, norms[position] if norms else None, target)
        if kind.skip and position > 0:
            hidden = torch.add(hidden, previous.body, out=target)
        if isinstance(present, Tensor):
            hidden = torch.where(present, hidden, previous.body, out=target)
        inputs.append(Activations(with_ones(hidden)) if into is None else into)
        saved.append(known)
    # Few outputs: the transposed product is several times faster than the direct one.
    left, right = weights.turned_head, inputs[-1].transposed
    product = torch.bmm(left, right, out=_product(workspace, -1, left, right))
    return Trace(inputs, saved, product.transpose(1, 2) if workspace is None else workspace.turned(product), norms)


def _product(workspace: Workspace | None, position: int, left: Tensor, right: Tensor) -> Tensor | None:
    if workspace is None:
        return None
    return workspace.take("product", position, (left.shape[0], left.shape[1], right.shape[2]), left)


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
        kind, weights, filled, trace: as given to `forward` and returned by it.
        output_gradient: derivative of the losses by the outputs, (n, points, out).
        workspace: buffers (those of an earlier call are overwritten), or None for differentiable tensors.
    """

    def buffer(name: str, position: int, shape: tuple[int, ...]) -> Tensor | None:
        return None if workspace is None else workspace.take(name, position, shape, output_gradient)

    last = len(weights.matrices) - 1
    norms: list[Tensor] = []
    by_last = by_head(trace, output_gradient)
    if weights.constant_outputs:
        by_last = without_inputs(by_last, weights.constant_outputs)
    matrices: list[Tensor | None] = [*[None] * last, by_last]
    shape = tuple(trace.features.shape)
    # By the activations behind the present position. A single output's product is plain multiplication, and faster so.
    product = torch.mul if output_gradient.shape[2] == 1 else torch.bmm
    upstream = product(output_gradient, weights.reversed[-1], out=buffer("upstream", last, shape))
    for position in range(last - 1, -1, -1):
        matrix, present = weights.matrices[position], position == 0 or filled[position - 1]
        if present is False:
            assert matrix is not None
            empty = buffer("zeros", position, tuple(matrix.shape))
            matrices[position] = torch.zeros_like(matrix) if empty is None else empty
            if weights.norms:
                norms.append(torch.zeros_like(weights.norms[position]))
            continue
        target = buffer("by_z", position, shape)
        norm = trace.norms[position] if trace.norms else None
        by_z, by_norm = kind.backward(upstream, trace.saved[position], norm, target)
        if isinstance(present, Tensor):
            by_z = torch.mul(by_z, present, out=target)
        if by_norm is not None and weights.norms:
            norms.append(by_norm * present)
        if matrix is not None:
            target = buffer("gradient", position, tuple(matrix.shape))
            matrices[position] = torch.bmm(trace.inputs[position].transposed, by_z, out=target)
        if position > 0:
            target = buffer("upstream", position, shape)
            by_input = torch.bmm(by_z, weights.reversed[position - 1], out=target)
            if kind.skip:
                by_input = torch.add(by_input, upstream, out=target)
            elif isinstance(present, Tensor):
                by_input = torch.where(present, by_input, upstream, out=target)
            upstream = by_input
    return Weights(matrices, norms[::-1])


def by_head(trace: Trace, output_gradient: Tensor) -> Tensor:
    """Gradients by the head's matrix, (n, width + 1, out): the sum over points of activation x output gradient."""
    inputs = trace.inputs[-1].tensor
    if len(inputs) <= FEW_ROWS:
        return torch.bmm(trace.inputs[-1].transposed, output_gradient)
    if output_gradient.shape[2] == 1:
        return (inputs * output_gradient).sum(dim=1).unsqueeze(2)
    return torch.bmm(output_gradient.transpose(1, 2), inputs).transpose(1, 2)


def without_inputs(head: Tensor, constant_outputs: int) -> Tensor:
    """The head's matrix (..., width + 1, out) with zeros where it would lead from activations to constant outputs."""
    mask = torch.ones(head.shape[-2:], dtype=head.dtype, device=head.device)
    mask[:-1, head.shape[-1] - constant_outputs :] = 0.0
    return head * mask


def mean_over_points(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Means of (n, points, width) over the points, (n, 1, width), or with these weights (n, points) that sum to 1."""
    if weights is not None:
        return torch.bmm(weights.unsqueeze(1), values)
    count, points, _ = values.shape
    if count <= FEW_ROWS:
        return torch.bmm(constant(1.0 / points, values, (count, 1, points)), values)
    return values.sum(dim=1, keepdim=True).mul_(constant(1.0 / points, values))


CLIP_NORM = 10.0


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

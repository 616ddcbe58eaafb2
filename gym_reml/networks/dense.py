"""The batched core: n sub-networks side by side, each with its own weights, their exact gradients by hand.

Every layer is one matrix whose last row is the bias, (n, in + 1, out); inputs carry a column of ones. The same
functions serve stepping (no graph, reused buffers) and replay (autograd runs *through* the hand-written gradient, which
gives the exact second-order meta-gradient without double backward).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gym_reml.networks.buffers import BiasedInputs, Workspace, constant
from gym_reml.networks.layer_kinds import LayerKind, Saved
from gym_reml.networks.weights import Weights, without_inputs

FEW_ROWS = 8  # where one call fewer still matters more than how fast it is


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

    inputs: list[BiasedInputs]
    saved: list[Saved]
    outputs: Tensor
    norms: list[Tensor]

    def first(self, points: int, workspace: Workspace | None = None) -> Trace:
        """The part of this pass, through that workspace, that belongs to the first points of each row.

        Not for kinds that look across points: theirs would have been another pass.
        """
        views = BiasedInputs if workspace is None else workspace.views
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
    prepared: Tensor | BiasedInputs,
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
        inputs = [prepared if isinstance(prepared, BiasedInputs) else BiasedInputs(prepared)]
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
        inputs.append(BiasedInputs(with_ones(hidden)) if into is None else into)
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


def mean_over_points(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Means of (n, points, width) over the points, (n, 1, width), or with these weights (n, points) that sum to 1."""
    if weights is not None:
        return torch.bmm(weights.unsqueeze(1), values)
    count, points, _ = values.shape
    if count <= FEW_ROWS:
        return torch.bmm(constant(1.0 / points, values, (count, 1, points)), values)
    return values.sum(dim=1, keepdim=True).mul_(constant(1.0 / points, values))

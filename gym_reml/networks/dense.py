"""Dense networks: n of them evaluated together, each with its own weights, with exact hand-written gradients.

Every layer is one matrix whose last row is the bias, (n, in + 1, out); inputs have a last column of ones. The same
functions serve stepping (no autograd graph, reused buffers) and replay (autograd differentiates *through* the
hand-written gradient, which gives the exact second-order meta-gradient without double backward).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from gym_reml.networks.architecture import Architecture, Filled
from gym_reml.networks.buffers import FEW_ROWS, BiasedInputs, Workspace, constant
from gym_reml.networks.layer_kinds import LAYER_KINDS, LayerKind, Saved
from gym_reml.networks.weights import Weights


@dataclass
class DenseTrace:
    """Results of a forward pass that the backward pass needs.

    Attributes:
        inputs: inputs of the stem, of each slot and of the head.
        saved: tensors that the layer kind saved for its backward pass, for stem and slots.
        outputs: (n, points, out).
        norms: the norms used by stem and slots; empty for kinds without normalisation.
    """

    inputs: list[BiasedInputs]
    saved: list[Saved]
    outputs: Tensor
    norms: Sequence[Tensor]

    def first(self, points: int, workspace: Workspace | None = None) -> DenseTrace:
        """The part of this pass for the first `points` points of each row; `workspace` is the one the pass used.

        Not valid for kinds with batch statistics, whose pass over fewer points would differ.
        """
        views = BiasedInputs if workspace is None else workspace.views
        saved = [tuple([views(tensor).first(points).tensor for tensor in tensors]) for tensors in self.saved]
        outputs = views(self.outputs).first(points).tensor
        return DenseTrace([inputs.first(points) for inputs in self.inputs], saved, outputs, self.norms)

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer, (n, points, width)."""
        return self.inputs[-1].body


class _Transposed:
    """Cached transposes of the n networks' matrices: stepping updates the same weights in place.

    They are worth 6 % of a step at n = 1, 7 % at n = 8; see `buffers` for how that was measured.
    """

    def __init__(self, weights: Weights) -> None:
        self._matrices = [position.get("matrix") for position in weights.positions]

    @cached_property
    def without_bias(self) -> list[Tensor]:
        """Those of slots and head, for back-propagation, each (n, out, in)."""
        return [matrix[:, :-1].transpose(1, 2) for matrix in self._matrices[1:] if matrix is not None]

    @cached_property
    def head(self) -> Tensor:
        """That of the head with its bias, (n, out, in + 1)."""
        head = self._matrices[-1]
        assert head is not None
        return head.transpose(1, 2)


def _transposed(weights: Weights) -> _Transposed:
    if weights.views is None:
        weights.views = _Transposed(weights)
    views: _Transposed = weights.views
    return views


class Dense(Architecture[DenseTrace]):
    """Multilayer perceptrons whose hidden layers all have the same kind and width.

    Each position holds a "matrix" (n, in + 1, out) and, with normalisation, a "norm" (n, 2, width): gain and shift. The
    head of a Gaussian policy also holds "constants" (n, 1, constant_outputs): its log standard deviations, the last
    outputs, which do not depend on the input.
    """

    def __init__(self, kind: LayerKind) -> None:
        """Creates the architecture whose hidden layers are of `kind`."""
        self.kind = kind
        self.skip, self.normalised, self.across_points = kind.skip, kind.normalised, kind.across_points

    def initial(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int,
        layers: int,
        constant_outputs: int,
        scale: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Initialised like `nn.Linear`: weights and biases ~ U(-1/sqrt(in), 1/sqrt(in)); constants are 0."""

        def uniform(*shape: int) -> Tensor:
            bound = (shape[-2] - 1) ** -0.5
            return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)

        parameters = {
            "stem.matrix": uniform(in_features + 1, width),
            "layers.matrix": uniform(layers, width + 1, width) * scale,
            "head.matrix": uniform(width + 1, out_features)[:, : out_features - constant_outputs].contiguous(),
        }
        if constant_outputs:
            parameters["head.constants"] = torch.zeros(1, constant_outputs, dtype=torch.float32)
        if self.normalised:
            unit = torch.tensor([[1.0], [0.0]], dtype=torch.float32).repeat(1, width)
            parameters["stem.norm"] = unit.clone()
            parameters["layers.norm"] = unit.repeat(layers, 1, 1)
        return parameters

    def prepare(self, inputs: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
        """Inputs with a column of ones, (n, points, in + 1), or the stem's pre-activations if it is not adapted.

        The latter do not change within an episode, which saves the products and n copies of the stem for wide inputs.
        """
        return with_ones(inputs) @ fixed["matrix"] if "matrix" in fixed else with_ones(inputs)

    def forward(
        self,
        weights: Weights,
        inputs: Tensor | BiasedInputs,
        *,
        filled: Filled,
        norms: Sequence[Tensor] | None = None,
        workspace: Workspace | None = None,
        trace: DenseTrace | None = None,
        start: int = 0,
        kept: int | None = None,
    ) -> DenseTrace:
        """Computes the networks' outputs; see `Architecture.forward`. All points are kept."""
        positions, kind = weights.positions, self.kind
        if norms is None:
            norms = [position["norm"] for position in positions[:-1]] if "norm" in positions[0] else []
        saved: list[Saved] = []
        if start == 0:
            layer_inputs = [inputs if isinstance(inputs, BiasedInputs) else BiasedInputs(inputs)]
        else:
            assert trace is not None
            layer_inputs, saved = trace.inputs[: start + 1], trace.saved[:start]
            norms = [*trace.norms[:start], *norms[start:]]
        for index in range(start, len(positions) - 1):
            previous, present = layer_inputs[index], index == 0 or filled[index - 1]
            if present is False:
                layer_inputs.append(previous)
                saved.append(())
                continue
            matrix, z = positions[index].get("matrix"), previous.tensor
            if matrix is not None:  # otherwise the inputs are the pre-activations already
                z = torch.bmm(z, matrix, out=_product(workspace, index, z, matrix))
            buffer = None if workspace is None else workspace.activations(index, tuple(z.shape), z)
            target = None if buffer is None else buffer.body
            hidden, saved_by_layer = kind.forward(z, norms[index] if norms else None, target)
            if kind.skip and index > 0:
                hidden = torch.add(hidden, previous.body, out=target)
            if isinstance(present, Tensor):
                hidden = torch.where(present, hidden, previous.body, out=target)
            layer_inputs.append(BiasedInputs(with_ones(hidden)) if buffer is None else buffer)
            saved.append(saved_by_layer)
        # With few outputs the transposed product is several times faster than the direct one.
        left, right = _transposed(weights).head, layer_inputs[-1].transposed
        product = torch.bmm(left, right, out=_product(workspace, -1, left, right))
        outputs = product.transpose(1, 2) if workspace is None else workspace.transposed(product)
        if "constants" in positions[-1]:
            outputs = torch.cat([outputs, positions[-1]["constants"].expand(-1, outputs.shape[1], -1)], dim=2)
        return DenseTrace(layer_inputs, saved, outputs, norms)

    def outputs(
        self, weights: Weights, inputs: Tensor, *, filled: Filled, norms: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The networks' outputs alone; see `Architecture.outputs`.

        One node for autograd, whose derivative is the hand-written gradient, instead of several for each layer: an
        exact meta-gradient of 64 episodes, judged after each of five steps, takes 8 % less time.
        """
        if norms is not None or inputs.requires_grad:  # of which `gradient` knows nothing
            return super().outputs(weights, inputs, filled=filled, norms=norms)
        outputs: Tensor = _Outputs.apply(self, weights, inputs, filled, *weights.tensors())
        return outputs

    def gradient(
        self,
        weights: Weights,
        trace: DenseTrace,
        *,
        output_gradient: Tensor,
        filled: Filled,
        workspace: Workspace | None = None,
    ) -> Weights:
        """Hand-written gradients; see `Architecture.gradient`."""

        def buffer(name: str, index: int, shape: tuple[int, ...]) -> Tensor | None:
            return None if workspace is None else workspace.take(name, index, shape, output_gradient)

        positions, kind, matrices = weights.positions, self.kind, _transposed(weights).without_bias
        last = len(positions) - 1
        gradients: list[dict[str, Tensor]] = [{} for _ in positions]
        if "constants" in positions[-1]:
            varying = positions[-1]["matrix"].shape[2]
            gradients[last]["constants"] = output_gradient[:, :, varying:].sum(dim=1, keepdim=True)
            output_gradient = output_gradient[:, :, :varying]
        gradients[last] = {"matrix": self.head_gradient(trace, output_gradient), **gradients[last]}
        shape = tuple(trace.features.shape)
        # Gradient with respect to the activations after the present position. For a single output the matrix product is
        # an elementwise product, which is faster.
        product = torch.mul if output_gradient.shape[2] == 1 else torch.bmm
        upstream = product(output_gradient, matrices[-1], out=buffer("upstream", last, shape))
        for index in range(last - 1, -1, -1):
            position, present = positions[index], index == 0 or filled[index - 1]
            matrix = position.get("matrix")
            if present is False:
                for name, tensor in position.items():
                    empty = buffer("zeros " + name, index, tuple(tensor.shape))
                    gradients[index][name] = torch.zeros_like(tensor) if empty is None else empty
                continue
            target = buffer("z_gradient", index, shape)
            norm = trace.norms[index] if trace.norms else None
            z_gradient, norm_gradient = kind.backward(upstream, trace.saved[index], norm, target)
            if isinstance(present, Tensor):
                z_gradient = torch.mul(z_gradient, present, out=target)
            if matrix is not None:
                target = buffer("gradient", index, tuple(matrix.shape))
                gradients[index]["matrix"] = torch.bmm(trace.inputs[index].transposed, z_gradient, out=target)
            if norm_gradient is not None and "norm" in position:
                gradients[index]["norm"] = norm_gradient * present
            if index > 0:
                target = buffer("upstream", index, shape)
                input_gradient = torch.bmm(z_gradient, matrices[index - 1], out=target)
                if kind.skip:
                    input_gradient = torch.add(input_gradient, upstream, out=target)
                elif isinstance(present, Tensor):
                    input_gradient = torch.where(present, input_gradient, upstream, out=target)
                upstream = input_gradient
        return Weights(gradients)

    def head_gradient(self, trace: DenseTrace, output_gradient: Tensor) -> Tensor:
        """Sum over points of activation x output gradient, including columns for the constant outputs."""
        inputs = trace.inputs[-1].tensor
        if len(inputs) <= FEW_ROWS:
            return torch.bmm(trace.inputs[-1].transposed, output_gradient)
        if output_gradient.shape[2] == 1:
            return (inputs * output_gradient).sum(dim=1).unsqueeze(2)
        return torch.bmm(output_gradient.transpose(1, 2), inputs).transpose(1, 2)

    def pre_activations(
        self,
        weights: Weights,
        trace: DenseTrace,
        *,
        position: int,
        rows: Tensor,
    ) -> Tensor:
        """Pre-activations x W + b of the layer at `position`, (k, points, width), of the k rows in the mask (n,)."""
        z, matrix = trace.inputs[position].tensor[rows], weights.positions[position].get("matrix")
        return z if matrix is None else torch.bmm(z, matrix[rows])


class _Outputs(torch.autograd.Function):
    """A forward pass, differentiated by `gradient`."""

    @staticmethod
    def forward(
        ctx: Any, architecture: Dense, weights: Weights, inputs: Tensor, filled: Filled, *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.architecture, ctx.weights, ctx.inputs, ctx.filled = architecture, weights, inputs, filled
        trace = architecture.forward(weights.like(tensors), inputs, filled=filled)
        # Not the outputs that are returned: they refer to this node.
        ctx.trace = replace(trace, outputs=trace.outputs.detach())
        return trace.outputs

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, ...]:
        architecture, weights, trace = ctx.architecture, ctx.weights.like(ctx.saved_tensors), ctx.trace
        if torch.is_grad_enabled():  # to be differentiated once more
            trace = architecture.forward(weights, ctx.inputs, filled=ctx.filled)
        gradient = architecture.gradient(weights, trace, output_gradient=output_gradient, filled=ctx.filled)
        return (None, None, None, None, *gradient.tensors())


_dense = lru_cache(Dense)


def dense(kind: str) -> Dense:
    """The dense architecture with layers of `kind`, a key of `LAYER_KINDS`, which may get other rows at any time."""
    return _dense(LAYER_KINDS[kind])


def with_ones(x: Tensor) -> Tensor:
    """x (..., size) with a last column of ones, (..., size + 1)."""
    return torch.cat([x, constant(1.0, x, (*x.shape[:-1], 1))], dim=-1)


def _product(workspace: Workspace | None, index: int, left: Tensor, right: Tensor) -> Tensor | None:
    if workspace is None:
        return None
    return workspace.take("product", index, (left.shape[0], left.shape[1], right.shape[2]), left)

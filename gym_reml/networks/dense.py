"""Dense networks: n of them side by side, each with its own weights, their exact gradients by hand.

Every layer is one matrix whose last row is the bias, (n, in + 1, out); inputs carry a column of ones. The same
functions serve stepping (no graph, reused buffers) and replay (autograd runs *through* the hand-written gradient, which
gives the exact second-order meta-gradient without double backward).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from gym_reml.networks.architecture import Architecture, Filled
from gym_reml.networks.buffers import FEW_ROWS, BiasedInputs, Workspace, constant
from gym_reml.networks.layer_kinds import LAYER_KINDS, LayerKind, Saved
from gym_reml.networks.weights import Weights


@dataclass
class DenseTrace:
    """What a forward pass leaves for the backward pass.

    Attributes:
        inputs: of stem, slots and head.
        saved: what the kind needs again, for stem and slots.
        outputs: (n, points, out).
        norms: of stem and slots, as they were used; empty for kinds without normalisation.
    """

    inputs: list[BiasedInputs]
    saved: list[Saved]
    outputs: Tensor
    norms: Sequence[Tensor]

    def first(self, points: int, workspace: Workspace | None = None) -> DenseTrace:
        """The part of this pass, through that workspace, that belongs to the first points of each row.

        Not for kinds that look across points: theirs would have been another pass.
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
    """The matrices of n networks transposed, each made once: stepping writes into the same weights again and again."""

    def __init__(self, weights: Weights) -> None:
        self._matrices = [position.get("matrix") for position in weights.positions]

    @cached_property
    def without_bias(self) -> list[Tensor]:
        """What takes gradients back through slots and head."""
        return [matrix[:, :-1].transpose(1, 2) for matrix in self._matrices[1:] if matrix is not None]

    @cached_property
    def head(self) -> Tensor:
        """The head's, with the bias."""
        head = self._matrices[-1]
        assert head is not None
        return head.transpose(1, 2)


def _transposed(weights: Weights) -> _Transposed:
    if weights.views is None:
        weights.views = _Transposed(weights)
    views: _Transposed = weights.views
    return views


class Dense(Architecture[DenseTrace]):
    """Networks of linear layers, all hidden ones of one kind and width.

    Positions hold a "matrix" (n, in + 1, out), and those of kinds that normalise a "norm" (n, 2, width), gain and
    shift. The head of a Gaussian policy also holds "constants" (n, 1, constant_outputs): its log deviations, the last
    outputs, which depend on no input.
    """

    def __init__(self, kind: LayerKind) -> None:
        """Networks whose hidden layers are of that kind."""
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
        """Initialised as `nn.Linear` is: U(-1/sqrt(in), 1/sqrt(in)) for all, biases too; constants are 0."""

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
        """Inputs with ones, (n, points, in + 1), or the stem's pre-activations where its matrix is not adapted.

        Those never change within an episode, which spares wide inputs both the products and n copies of the stem.
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
    ) -> DenseTrace:
        """Runs the networks; see `Architecture.forward`."""
        positions, kind = weights.positions, self.kind
        if norms is None:
            norms = [position["norm"] for position in positions[:-1]] if "norm" in positions[0] else []
        saved: list[Saved] = []
        if start == 0:
            behind = [inputs if isinstance(inputs, BiasedInputs) else BiasedInputs(inputs)]
        else:
            assert trace is not None
            behind, saved = trace.inputs[: start + 1], trace.saved[:start]
            norms = [*trace.norms[:start], *norms[start:]]
        for index in range(start, len(positions) - 1):
            previous, present = behind[index], index == 0 or filled[index - 1]
            if present is False:
                behind.append(previous)
                saved.append(())
                continue
            matrix, z = positions[index].get("matrix"), previous.tensor
            if matrix is not None:  # else these are the pre-activations
                z = torch.bmm(z, matrix, out=_product(workspace, index, z, matrix))
            into = None if workspace is None else workspace.activations(index, tuple(z.shape), z)
            target = None if into is None else into.body
            hidden, known = kind.forward(z, norms[index] if norms else None, target)
            if kind.skip and index > 0:
                hidden = torch.add(hidden, previous.body, out=target)
            if isinstance(present, Tensor):
                hidden = torch.where(present, hidden, previous.body, out=target)
            behind.append(BiasedInputs(with_ones(hidden)) if into is None else into)
            saved.append(known)
        # Few outputs: the transposed product is several times faster than the direct one.
        left, right = _transposed(weights).head, behind[-1].transposed
        product = torch.bmm(left, right, out=_product(workspace, -1, left, right))
        outputs = product.transpose(1, 2) if workspace is None else workspace.turned(product)
        if "constants" in positions[-1]:
            outputs = torch.cat([outputs, positions[-1]["constants"].expand(-1, outputs.shape[1], -1)], dim=2)
        return DenseTrace(behind, saved, outputs, norms)

    def gradient(
        self,
        weights: Weights,
        trace: DenseTrace,
        *,
        output_gradient: Tensor,
        filled: Filled,
        workspace: Workspace | None = None,
    ) -> Weights:
        """Gradients by hand; see `Architecture.gradient`."""

        def buffer(name: str, index: int, shape: tuple[int, ...]) -> Tensor | None:
            return None if workspace is None else workspace.take(name, index, shape, output_gradient)

        positions, kind, reverse = weights.positions, self.kind, _transposed(weights).without_bias
        last = len(positions) - 1
        found: list[dict[str, Tensor]] = [{} for _ in positions]
        if "constants" in positions[-1]:
            varying = positions[-1]["matrix"].shape[2]
            found[last]["constants"] = output_gradient[:, :, varying:].sum(dim=1, keepdim=True)
            output_gradient = output_gradient[:, :, :varying]
        found[last] = {"matrix": _head_gradient(trace, output_gradient), **found[last]}
        shape = tuple(trace.features.shape)
        # With respect to the activations behind the present position. The product with a single output is plain
        # multiplication, and faster so.
        product = torch.mul if output_gradient.shape[2] == 1 else torch.bmm
        upstream = product(output_gradient, reverse[-1], out=buffer("upstream", last, shape))
        for index in range(last - 1, -1, -1):
            position, present = positions[index], index == 0 or filled[index - 1]
            matrix = position.get("matrix")
            if present is False:
                for name, tensor in position.items():
                    empty = buffer("zeros " + name, index, tuple(tensor.shape))
                    found[index][name] = torch.zeros_like(tensor) if empty is None else empty
                continue
            target = buffer("by_z", index, shape)
            norm = trace.norms[index] if trace.norms else None
            by_z, by_norm = kind.backward(upstream, trace.saved[index], norm, target)
            if isinstance(present, Tensor):
                by_z = torch.mul(by_z, present, out=target)
            if matrix is not None:
                target = buffer("gradient", index, tuple(matrix.shape))
                found[index]["matrix"] = torch.bmm(trace.inputs[index].transposed, by_z, out=target)
            if by_norm is not None and "norm" in position:
                found[index]["norm"] = by_norm * present
            if index > 0:
                target = buffer("upstream", index, shape)
                by_input = torch.bmm(by_z, reverse[index - 1], out=target)
                if kind.skip:
                    by_input = torch.add(by_input, upstream, out=target)
                elif isinstance(present, Tensor):
                    by_input = torch.where(present, by_input, upstream, out=target)
                upstream = by_input
        return Weights(found)

    def head_gradient(self, trace: DenseTrace, output_gradient: Tensor) -> Tensor:
        """The sum over points of activation x output gradient, as if constant outputs had weights too."""
        return _head_gradient(trace, output_gradient)

    def pre_activations(
        self,
        weights: Weights,
        trace: DenseTrace,
        *,
        position: int,
        rows: Tensor,
    ) -> Tensor:
        """x W + b of the rows."""
        z, matrix = trace.inputs[position].tensor[rows], weights.positions[position].get("matrix")
        return z if matrix is None else torch.bmm(z, matrix[rows])


@lru_cache
def dense(kind: str) -> Dense:
    """The dense architecture whose layers are of the kind of that name, a key of `LAYER_KINDS`."""
    return Dense(LAYER_KINDS[kind])


def with_ones(x: Tensor) -> Tensor:
    """x with a column of ones behind it."""
    return torch.cat([x, constant(1.0, x, (*x.shape[:-1], 1))], dim=-1)


def _product(workspace: Workspace | None, index: int, left: Tensor, right: Tensor) -> Tensor | None:
    if workspace is None:
        return None
    return workspace.take("product", index, (left.shape[0], left.shape[1], right.shape[2]), left)


def _head_gradient(trace: DenseTrace, output_gradient: Tensor) -> Tensor:
    """The sum over points of activation x output gradient, (n, width + 1, out)."""
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

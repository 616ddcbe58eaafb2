"""The interface of an architecture: how n networks of one kind are initialised, evaluated and differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.networks.buffers import FEW_ROWS, BiasedInputs, Workspace, constant
from gym_reml.networks.weights import Weights, descend, gradient_norms, within_range

Filled = Sequence["Tensor | int"]
"""For each slot: True or False if it holds a layer in all rows or in none, else a tensor; see `Architecture.filled`."""


class Trace(Protocol):
    """Results of a forward pass that the gradient and the observations need.

    Attributes:
        outputs: (n, points, out_features).
    """

    outputs: Tensor

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer, (n, points, width)."""
        ...

    def first(self, points: int, workspace: Workspace | None = None) -> Any:
        """The part of this pass for the first `points` points of each row; `workspace` is the one the pass used."""
        ...


TraceType = TypeVar("TraceType", bound=Trace)
"""The architecture's own type of trace: returned by `forward`, taken by the other methods."""


class Architecture(ABC, Generic[TraceType]):
    """How n networks of one kind compute, each with its own weights.

    A network is a stem, slots that hold layers of the pool or are empty, and a head: positions 0 to slots + 1. Every
    method serves both stepping (reused buffers, no autograd graph) and replay (new tensors, differentiable with respect
    to the weights).

    Attributes:
        skip: a layer of zeros is the identity and its gradient is zero, so empty slots need no mask.
        normalised: layers have a norm (gain and shift), which may differ from step to step; see
            `LayerPool.with_step_norms`.
        across_points: the output at a point depends on the other points of the pass (batch statistics), so support and
            query set need separate passes.
    """

    skip: bool
    normalised: bool
    across_points: bool

    def filled(self, layers: NDArray[np.int64], depth: NDArray[np.int64], device: torch.device) -> Filled:
        """What `forward` and `gradient` need to know of the slots.

        Args:
            layers: (slots, n), numbers of the pool layers in the slots; those from `depth` on do not count.
            depth: (n,), number of slots that hold a layer.
            device: of the tensors.

        Returns:
            For each slot: True or False if it holds a layer in all rows or in none, else a bool tensor (n, 1, 1).
        """
        shallowest, deepest = int(np.minimum.reduce(depth)), int(np.maximum.reduce(depth))
        return [
            True
            if slot < shallowest
            else False
            if slot >= deepest
            else torch.from_numpy(depth > slot).to(device).reshape(-1, 1, 1)
            for slot in range(len(layers))
        ]

    @abstractmethod
    def prepare(self, inputs: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
        """Preprocesses inputs once, in the form that `forward` takes.

        Args:
            inputs: (n, points, in_features).
            fixed: tensors of the stem that are not adapted, by name; all rows and steps share them.
        """

    @abstractmethod
    def forward(
        self,
        weights: Weights,
        inputs: Tensor | BiasedInputs,
        *,
        filled: Filled,
        norms: Sequence[Tensor] | None = None,
        workspace: Workspace | None = None,
        trace: TraceType | None = None,
        start: int = 0,
        kept: int | None = None,
    ) -> TraceType:
        """Computes the networks' outputs.

        Args:
            weights: of n networks.
            inputs: as returned by `prepare`; unused if `start` > 0.
            filled: as returned by `filled`; empty slots are the identity.
            norms: norms of stem and slots, if they are not among `weights`.
            workspace: buffers to use (stepping), or None for new differentiable tensors (replay).
            trace: an earlier pass over the same inputs, needed if `start` > 0; with a workspace it may be overwritten.
            start: the first position whose weights changed since `trace`: 0 is the stem, 1 the first slot.
            kept: of how many points, the first, anything but outputs will be asked, so that more need not be stored;
                None for all.
        """

    @abstractmethod
    def gradient(
        self,
        weights: Weights,
        trace: TraceType,
        *,
        output_gradient: Tensor,
        filled: Filled,
        workspace: Workspace | None = None,
    ) -> Weights:
        """Gradients of the n losses with respect to the n networks' weights; zero for empty slots.

        Args:
            weights, filled: as given to `forward`.
            trace: returned by `forward`.
            output_gradient: gradients of the losses with respect to the outputs, (n, points, out_features).
            workspace: buffers to use (overwriting the results of an earlier call), or None for new differentiable
                tensors.
        """

    def outputs(
        self, weights: Weights, inputs: Tensor, *, filled: Filled, norms: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The networks' outputs alone, (n, points, out_features), differentiable in reverse mode.

        Args:
            weights, inputs, filled, norms: see `forward`.
        """
        return self.forward(weights, inputs, filled=filled, norms=norms).outputs

    def descend(
        self,
        weights: Weights,
        trace: TraceType,
        *,
        output_gradient: Tensor,
        filled: Filled,
        step_sizes: Tensor,
        clip: float | None,
        rates: Weights | None = None,
        workspace: Workspace | None = None,
        out: Weights,
    ) -> tuple[Weights, Tensor, float]:
        """One clipped step of gradient descent, without autograd graph.

        Args:
            weights, trace, output_gradient, filled, workspace: see `gradient`.
            step_sizes, clip, rates, out: see `gym_reml.networks.weights.descend`.

        Returns:
            The new weights, the norms of the gradients by position before clipping, (slots + 2, n), and their sum.
        """
        gradient = self.gradient(weights, trace, output_gradient=output_gradient, filled=filled, workspace=workspace)
        before = gradient_norms(gradient)
        gradient, norms, together = within_range(gradient, before, clip)
        new = descend(weights, gradient, norms=norms, step_sizes=step_sizes, clip=clip, rates=rates, out=out)
        return new, before, together

    def observed(
        self, trace: TraceType, output_gradient: Tensor, *, point_weights: Tensor | None, exchangeable: bool
    ) -> Tensor:
        """What agents observe of the networks: the head's gradient and the last hidden layer, over a pass's points.

        Args:
            trace: of a pass over the support sets.
            output_gradient: gradients of the losses with respect to the outputs, (n, points, out_features).
            point_weights: (n, points), summing to 1 in each row, or None for equal ones.
            exchangeable: the order of outputs is arbitrary: give the norm of the gradient over them.

        Returns:
            (n, size): the gradient, (width + 1) x out_features values, or width + 1 norms; mean and standard deviation
            of the activations, width values each.
        """
        gradient = self.head_gradient(trace, output_gradient)
        if exchangeable:
            gradient = torch.linalg.vector_norm(gradient, dim=2)
        # Not by var or vector_norm, which are more than ten times slower over this dimension.
        features = trace.features
        mean = mean_over_points(features, point_weights)
        deviation = mean_over_points((features - mean).square_(), point_weights).sqrt_()
        return torch.cat([gradient.flatten(1), mean.squeeze(1), deviation.squeeze(1)], dim=1)

    @abstractmethod
    def head_gradient(self, trace: TraceType, output_gradient: Tensor) -> Tensor:
        """Gradients of the losses with respect to the head, (n, width + 1, out_features): observed by agents."""


def mean_over_points(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Means of `values` (n, points, width) over points, (n, 1, width).

    Args:
        values: (n, points, width).
        weights: (n, points), summing to 1 in each row, or None for equal ones.
    """
    if weights is not None:
        return torch.bmm(weights.unsqueeze(1), values)
    count, points, _ = values.shape
    if count <= FEW_ROWS:
        return torch.bmm(constant(1.0 / points, values, (count, 1, points)), values)
    return values.sum(dim=1, keepdim=True).mul_(constant(1.0 / points, values))

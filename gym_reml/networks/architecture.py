"""The contract of an architecture: how n networks of one kind are initialised, computed and differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.networks.weights import Weights

Filled = Sequence["Tensor | bool"]
"""For each slot: True or False where all rows agree whether it holds a layer, else a (n, 1, 1) bool tensor."""


class Trace(Protocol):
    """What a forward pass leaves for the gradient, and for whoever observes it.

    Attributes:
        outputs: (n, points, out_features).
    """

    outputs: Tensor

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer, (n, points, width)."""
        ...

    def first(self, points: int, workspace: Workspace | None = None) -> Any:
        """The part of this pass, through that workspace, that belongs to the first points of each row."""
        ...


Kept = TypeVar("Kept", bound=Trace)
"""The kind of trace that an architecture leaves, and gets back."""


class Architecture(ABC, Generic[Kept]):
    """How n networks of one kind compute, each with weights of its own.

    A network is a stem, slots that hold layers of the pool or are empty, and a head: positions 0 to slots + 1. Every
    method serves stepping (buffers, no graph) and replay (fresh tensors, differentiable in the weights).

    Attributes:
        skip: a layer of zeros passes its input on and has no gradient, so that empty slots need no mask.
        normalised: layers have a norm, which is given for each step where the pool says so.
        across_points: what a point becomes depends on the other points of the pass, so that support and query set need
            passes of their own.
    """

    skip: bool
    normalised: bool
    across_points: bool

    @abstractmethod
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
        """Fresh parameters of a pool by name: "stem.*", "layers.*" (layers, ...) and "head.*", float32."""

    @abstractmethod
    def prepare(self, inputs: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
        """Inputs (n, points, in_features) as `forward` takes them.

        Args:
            inputs: of n networks.
            fixed: tensors of the stem that are not adapted, by name, and so are the same for all rows and steps.
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
        trace: Kept | None = None,
        start: int = 0,
    ) -> Kept:
        """Runs the networks.

        Args:
            weights: of n networks.
            inputs: see `prepare`; not read if `start` > 0.
            filled: which slots hold a layer; empty ones pass their input on.
            norms: of stem and slots, where these are not the weights' own.
            workspace: buffers to use (stepping), or None for fresh differentiable tensors (replay).
            trace: an earlier pass over the same inputs, needed if `start` > 0.
            start: the first position that changed since then: 0 is the stem, 1 the first slot.
        """

    @abstractmethod
    def gradient(
        self,
        weights: Weights,
        trace: Kept,
        *,
        output_gradient: Tensor,
        filled: Filled,
        workspace: Workspace | None = None,
    ) -> Weights:
        """Gradients of the n losses with respect to the n networks' weights; zero for empty slots.

        Args:
            weights, filled: as given to `forward`.
            trace: what it returned.
            output_gradient: derivatives of the losses with respect to the outputs, (n, points, out_features).
            workspace: buffers (those of an earlier call are overwritten), or None for differentiable tensors.
        """

    @abstractmethod
    def head_gradient(self, trace: Kept, output_gradient: Tensor) -> Tensor:
        """What agents see of the gradient: its part for the head, (n, width + 1, out_features)."""

    @abstractmethod
    def pre_activations(self, weights: Weights, trace: Kept, *, position: int, rows: Tensor) -> Tensor:
        """What the layer at that position normalised or activated, (rows, points, width), for a (n,) mask of rows."""

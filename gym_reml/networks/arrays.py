"""Arrays of n dense networks, in the groups in which compiled loops take them; see `gym_reml.networks.kernels`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Arrays(NamedTuple):
    """Weights, or gradients by them.

    Attributes:
        stem: (n, in + 1, width), or (n, 0, width) if the stem is not adapted.
        slots: (slots, n, width + 1, width).
        head: (n, width + 1, out).
        norms: (slots + 1, n, 2, width), or without rows if norms are not among the weights.
    """

    stem: Array
    slots: Array
    head: Array
    norms: Array


class Pass(NamedTuple):
    """A forward pass, and what the gradient needs of its first points, those that are kept.

    Attributes:
        inputs: (n, points, in + 1), or the stem's pre-activations (n, points, width) if the stem is not adapted.
        norms: (slots + 1, n, 2 or 4, width), or without rows for kinds that do not normalise.
        depth: (n,), number of slots that hold a layer.
        activations: (slots + 1, n, kept, width + 1), whose last column holds ones.
        saved: (slots + 1, n, kept, width): pre-activations, or for tanh activations.
        units, scales: for kinds that normalise, (slots + 1, n, kept, width) and (slots + 1, n, kept or width).
    """

    inputs: Array
    norms: Array
    depth: NDArray[np.int64]
    activations: Array
    saved: Array
    units: Array
    scales: Array


class Squares(NamedTuple):
    """Targets of n networks whose losses are mean squared errors, and what is found of the current networks.

    Attributes:
        targets, query_targets: of the support and the query sets, (n, points, out).
        gradient: of the support losses with respect to the outputs, shaped as the targets.
        losses: (2, n), of support and query sets.
    """

    targets: Array
    query_targets: Array
    gradient: Array
    losses: Array

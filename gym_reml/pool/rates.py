"""Learned step sizes ("rates"): granularities, shapes of their tensors, and those of given networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.networks.weights import Weights

PER_STEP = ("step", "weight_step")
"""Granularities with rates of their own for each step."""

RATES = ("scalar", "tensor", "step", "weight", "weight_step")
"""Granularities: a single number; one per tensor; one per tensor and step (LSLR of MAML++, Antoniou et al. 2019,
arXiv:1810.09502); one per weight (Meta-SGD, Li et al. 2017, arXiv:1707.09835); one per weight and step for each slot of
the network, which all layers in that slot share: a pool of many layers has no more of them than a single network."""

Shapes = dict[str, tuple[int, ...]]


def rate_shapes(
    granularity: str, adapted: Mapping[str, tuple[int, ...]], *, layers: int, steps: int, slots: int
) -> Shapes:
    """Shapes of the rates by name.

    Args:
        granularity: one of RATES.
        adapted: shapes of the adapted parameters by name.
        layers: number of layers of the pool.
        steps: number of steps with their own rates, for granularities of PER_STEP.
        slots: number of slots with their own rates, for granularity "weight_step".
    """
    if granularity == "scalar":
        return {"all": ()}
    prefix = (steps,) if granularity in PER_STEP else ()
    if granularity == "weight":
        return dict(adapted)
    if granularity == "weight_step":
        own = {name: (slots, *shape[1:]) if name.startswith("layers.") else shape for name, shape in adapted.items()}
        return {name: (steps, *shape) for name, shape in own.items()}
    return {name: (*prefix, layers) if name.startswith("layers.") else prefix for name in adapted}


def places(name: str, index: Tensor) -> Iterator[tuple[int, str, Tensor | None]]:
    """The positions at which n networks use a parameter of the pool.

    Args:
        name: name of the parameter, such as "layers.matrix".
        index: (slots, n) int64, the layer in each slot, counted from 0.

    Yields:
        The position, the tensor's name at that position, and the rows' layers there (n,), or None if all rows share the
        tensor.
    """
    part, _, key = name.partition(".")
    if part == "layers":
        for slot, row_layers in enumerate(index):
            yield slot + 1, key, row_layers
    else:
        yield (0 if part == "stem" else len(index) + 1), key, None


def gather_rates(
    rates: Mapping[str, Tensor],
    granularity: str | None,
    *,
    adapted: Mapping[str, int],
    index: Tensor,
    clock: NDArray[np.int64],
) -> Weights:
    """The rates of n networks, each broadcastable to its weights.

    Args:
        rates: rates of the pool, by name.
        granularity: one of RATES.
        adapted: number of dimensions of a network's tensors, without that of the row, by name of the parameter.
        index: (slots, n) int64, the layer in each slot, counted from 0.
        clock: (n,) int64, number of steps taken; after the last step with its own rates, these are reused, as are those
            of the last slot that has its own.
    """
    count, by_step = len(clock), granularity in PER_STEP
    first = int(clock[0]) if by_step and count else 0
    together = by_step and not np.count_nonzero(clock != first)
    gathered = Weights([{} for _ in range(len(index) + 2)])
    for name, dimensions in adapted.items():
        for position, key, row_layers in places(name, index):
            rate = rates["all" if granularity == "scalar" else name]
            if granularity == "weight_step" and row_layers is not None:
                rate = rate[:, min(position - 1, rate.shape[1] - 1)]
            if granularity in ("scalar", "weight_step"):
                row_layers = None
            if not by_step:
                chosen = rate.expand(count, *rate.shape) if row_layers is None else rate[row_layers]
            elif together:
                # Rows at the same step share its rates, which need not be copied for each.
                now = rate[min(first, len(rate) - 1)]
                chosen = now.expand(count, *now.shape) if row_layers is None else now[row_layers]
            else:
                step = torch.from_numpy(np.minimum(clock, len(rate) - 1)).to(rate.device)
                chosen = rate[step] if row_layers is None else rate[step, row_layers]
            # A single number per tensor is broadcast over the tensor.
            gathered.positions[position][key] = chosen if chosen.ndim > 1 else chosen.reshape(-1, *[1] * dimensions)
    return gathered

"""Norms and running statistics for each step (BNWB and BNRS of MAML++, Antoniou et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def statistics_shapes(*, width: int, layers: int, steps: int) -> dict[str, tuple[int, ...]]:
    """Shapes of running statistics: mean and variance by step, and for layers by layer."""
    return {"stem": (steps, 2, width), "layers": (steps, layers, 2, width)}


def gather_norms(
    parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], *, index: Tensor, clock: Tensor
) -> list[Tensor]:
    """What normalised layers of n networks take at some step, stem first.

    Args:
        parameters: of the pool: "stem.norm" (T, 2, width) and "layers.norm" (T, L, 2, width).
        statistics: those that come along, {} for none.
        index: (slots, n) int64, which layer each slot holds, from 0.
        clock: (n,) int64, number of the step; before the first is as the first, beyond the last as the last.

    Returns:
        Each (n, 2, width), gain and shift, or with statistics (n, 4, width), mean and variance behind these.
    """
    stem, layers = parameters["stem.norm"], parameters["layers.norm"]
    step = clock.clamp(0, len(stem) - 1)
    if statistics:
        stem = torch.cat([stem, statistics["stem"]], dim=-2)
        layers = torch.cat([layers, statistics["layers"]], dim=-2)
    return [stem[step], *(layers[step, rows] for rows in index)]

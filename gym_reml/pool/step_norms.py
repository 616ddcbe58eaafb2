"""Norms and running statistics for each step (BNWB and BNRS of MAML++, Antoniou et al. 2019, arXiv:1810.09502)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def statistics_shapes(*, width: int, layers: int, steps: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the running statistics, mean and variance, by name."""
    return {"stem": (steps, 2, width), "layers": (steps, layers, 2, width)}


def gather_norms(
    parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], *, index: Tensor, clock: Tensor
) -> list[Tensor]:
    """The norms of stem and slots of n networks at a given step.

    Args:
        parameters: the pool's, with "stem.norm" (T, 2, width) and "layers.norm" (T, L, 2, width).
        statistics: running statistics to append, {} for none.
        index: (slots, n) int64, the layer in each slot, counted from 0.
        clock: (n,) int64, number of the step, clipped to 0 .. T - 1.

    Returns:
        For the stem and each slot (n, 2, width): gain and shift; with statistics (n, 4, width): gain, shift, mean and
        variance.
    """
    stem, layers = parameters["stem.norm"], parameters["layers.norm"]
    step = clock.clamp(0, len(stem) - 1)
    if statistics:
        stem = torch.cat([stem, statistics["stem"]], dim=-2)
        layers = torch.cat([layers, statistics["layers"]], dim=-2)
    return [stem[step], *(layers[step, rows] for rows in index)]

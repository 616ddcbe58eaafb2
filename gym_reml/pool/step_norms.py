"""Running statistics for each step: the shapes that their tensors have."""

from __future__ import annotations

from gym_reml.pool.rates import Shapes


def statistics_shapes(width: int, layers: int, steps: int) -> Shapes:
    """Shapes of running statistics."""
    return {"stem": (steps, 2, width), "layers": (steps, layers, 2, width)}

"""Learned step sizes: their granularities, and the shapes that their tensors have."""

from __future__ import annotations

from collections.abc import Mapping

RATES = ("scalar", "tensor", "step", "weight")

Shapes = dict[str, tuple[int, ...]]


def rate_shapes(granularity: str, adapted: Mapping[str, tuple[int, ...]], layers: int, steps: int) -> Shapes:
    """Shapes of the rates of a granularity, from those of the adapted parameters."""
    if granularity == "scalar":
        return {"all": ()}
    if granularity == "weight":
        return dict(adapted)
    prefix = (steps,) if granularity == "step" else ()
    return {name: (*prefix, layers) if name.startswith("layers") else prefix for name in adapted}

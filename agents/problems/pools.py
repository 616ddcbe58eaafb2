"""Pools of random weights."""

from __future__ import annotations

from gym_reml.pool import LayerPool
from gym_reml.tasks.base import TaskFamily


def random_pool(
    family: TaskFamily,
    *,
    width: int | None = None,
    layers: int | None = None,
    kind: str | None = None,
    adapt_stem: bool | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> LayerPool:
    """A pool of random weights for a family, see `LayerPool.random`.

    Args:
        family: of the tasks; it says how many inputs and outputs, and how many of these are constant.
        width: units of every hidden layer; None is 40, or 64 for images.
        layers: how many layers to choose from; None is 8.
        kind: name of the layer kind; None is "residual", or "layer_norm" for images.
        adapt_stem, scale, seed: as for `LayerPool.random`.
    """
    images = family.in_features > 64
    return LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        width=width or (64 if images else 40),
        layers=layers or 8,
        kind=kind or ("layer_norm" if images else "residual"),
        adapt_stem=adapt_stem,
        scale=scale,
        constant_outputs=family.constant_outputs,
        seed=seed,
    )

"""Sources of a pool: packaged, random, given, or read from a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

from gym_reml.checks import check_integer
from gym_reml.files import as_path
from gym_reml.networks.blocks import check_kind
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import TaskFamily

PACKAGED_POOLS = {"sinusoid": "sinusoid_specialists.pt"}
"""File in `gym_reml/data` by name of the family whose specialised layers it holds."""


def pool_for(
    family: TaskFamily,
    pool: LayerPool | str | os.PathLike[str] | None,
    *,
    width: int | None = None,
    layers: int | None = None,
    layer_kind: str | None = None,
) -> tuple[LayerPool, str]:
    """The requested pool and its source: "packaged", "random", "given" or a path.

    Args:
        family: family of tasks, whose numbers of inputs and outputs the pool must have.
        pool: "packaged", "random", a pool (returned as it is, not copied), a path to one, or None. None means the
            packaged pool if the family has one, else a random one; if the packaged pool does not have the requested
            width, layers or kind, a random one is returned with a warning.
        width, layers, layer_kind: requirements on the pool; None for any.

    Raises:
        ValueError: no such pool, or one that does not meet the requirements; the message names the argument and the
            choices.
    """
    if layer_kind is not None:
        check_kind(layer_kind)
    for argument, value in (("width", width), ("layers", layers)):
        if value is not None:
            check_integer(argument, value)
    requested = {"width": width, "layers": layers, "layer_kind": layer_kind}
    if pool is None:
        packaged = _packaged_pool(family)
        if packaged is not None:
            misfits = _misfits(packaged, family, requested)
            if not misfits:
                return packaged, "packaged"
            warnings.warn(
                f"pool: the packaged specialists hold {packaged.describe()}; {', '.join(misfits)}, so the layers are "
                "random and untrained. Pass pool='random' if that is intended, or omit these arguments.",
                stacklevel=5,
            )
    if pool is None or (isinstance(pool, str) and pool == "random"):
        return random_pool(family, width=width, layers=layers, kind=layer_kind), "random"
    named_pool, source = _named_pool(pool, family)
    misfits = _misfits(named_pool, family, requested)
    if misfits:
        raise ValueError(f"pool: {source}, holds {named_pool.describe()}; {', '.join(misfits)}")
    return named_pool, source


def _named_pool(pool: Any, family: TaskFamily) -> tuple[LayerPool, str]:
    """The pool given by `pool`, without checking that it fits, and its source."""
    choices = "must be None, 'packaged', 'random', a LayerPool or a path to one"
    if isinstance(pool, LayerPool):
        pool.check()
        return pool, "given"
    if not isinstance(pool, str | os.PathLike):
        raise ValueError(f"pool={pool!r}: {choices}")
    if pool == "packaged":
        packaged = _packaged_pool(family)
        if packaged is None:
            names = ", ".join(map(repr, PACKAGED_POOLS))
            raise ValueError(f"pool='packaged': there is none for family={family.name!r}, only for {names}")
        return packaged, "packaged"
    if not as_path(pool).is_file():
        raise ValueError(f"pool={pool!r}: no such file; {choices}")
    return LayerPool.load(pool), str(pool)


def _misfits(pool: LayerPool, family: TaskFamily, requested: Mapping[str, Any]) -> list[str]:
    required = ("in_features", "out_features", "constant_outputs")
    present = {name: getattr(pool, name) for name in ("width", "layers", *required)} | {"layer_kind": pool.kind}
    requested = dict(requested) | {name: getattr(family, name) for name in required}
    return [
        f"{name}={value!r} was asked for"
        for name, value in requested.items()
        if value is not None and present[name] != value
    ]


def _packaged_pool(family: TaskFamily) -> LayerPool | None:
    name = PACKAGED_POOLS.get(family.name)
    if name is None:
        return None
    with as_file(files("gym_reml") / "data" / name) as path:
        return LayerPool.load(path)


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
        family: family of tasks, which determines the numbers of inputs, outputs and constant outputs.
        width: number of units of every hidden layer; None means 40, or 64 for images.
        layers: number of layers to choose from; None means 8.
        kind: name of the layer kind; None means "residual", or "layer_norm" for images.
        adapt_stem, scale, seed: as for `LayerPool.random`.
    """
    images = family.in_features > 64
    return LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        input_shape=family.input_shape,
        width=width or (64 if images else 40),
        layers=layers or 8,
        kind=kind or ("layer_norm" if images else "residual"),
        adapt_stem=adapt_stem,
        scale=scale,
        constant_outputs=family.constant_outputs,
        seed=seed,
    )

"""Where a pool comes from: packaged, random, given or from a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

from gym_reml.checks import check_integer
from gym_reml.files import as_path
from gym_reml.networks.layer_kinds import find_kind
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import TaskFamily

PACKAGED_POOLS = {"sinusoid": "sinusoid_specialists.pt"}
"""Files of `gym_reml/data` by the family whose specialists they hold."""


def pool_for(
    family: TaskFamily,
    pool: LayerPool | str | os.PathLike[str] | None,
    *,
    width: int | None = None,
    layers: int | None = None,
    layer_kind: str | None = None,
) -> tuple[LayerPool, str]:
    """The pool that was asked for, and where it comes from: "packaged", "random", "given" or a path.

    Args:
        family: of the tasks; the pool must have its inputs and outputs.
        pool: "packaged", "random", a pool (the very object is returned), a path to one, or None: the packaged one where
            there is one for the family, else a random one; also, with a warning, where the packaged one does not have
            the width, layers or kind that were asked for.
        width, layers, layer_kind: what the pool must have; None for any.

    Raises:
        ValueError: no such pool, or one that does not fit; the message names the argument and the choices.
    """
    if layer_kind is not None:
        find_kind(layer_kind)
    for argument, value in (("width", width), ("layers", layers)):
        if value is not None:
            check_integer(argument, value)
    wanted = {"width": width, "layers": layers, "layer_kind": layer_kind}
    if pool is None:
        packaged = _packaged_pool(family)
        if packaged is not None:
            misfits = _misfits(packaged, family, wanted)
            if not misfits:
                return packaged, "packaged"
            warnings.warn(
                f"pool: the packaged specialists hold {packaged.describe()}; {', '.join(misfits)}, so the layers are "
                "random and untrained. Say pool='random' if that is meant, or leave these arguments out.",
                stacklevel=5,
            )
    if pool is None or (isinstance(pool, str) and pool == "random"):
        return random_pool(family, width=width, layers=layers, kind=layer_kind), "random"
    found, source = _named_pool(pool, family)
    misfits = _misfits(found, family, wanted)
    if misfits:
        raise ValueError(f"pool: {source}, holds {found.describe()}; {', '.join(misfits)}")
    return found, source


def _named_pool(pool: Any, family: TaskFamily) -> tuple[LayerPool, str]:
    """A pool of somebody's choice, whether or not it fits."""
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


def _misfits(pool: LayerPool, family: TaskFamily, wanted: Mapping[str, Any]) -> list[str]:
    needed = ("in_features", "out_features", "constant_outputs")
    held = {name: getattr(pool, name) for name in ("width", "layers", *needed)} | {"layer_kind": pool.kind}
    wanted = dict(wanted) | {name: getattr(family, name) for name in needed}
    return [
        f"{name}={value!r} was asked for" for name, value in wanted.items() if value is not None and held[name] != value
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

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


def _find_pool(
    pool: LayerPool | str | os.PathLike[str] | None,
    family: TaskFamily,
    width: int | None,
    layers: int | None,
    layer_kind: str | None,
) -> tuple[LayerPool, str]:
    """The pool that was asked for, and where it comes from."""
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
        return _random_pool(family, width, layers, layer_kind), "random"
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


def _random_pool(family: TaskFamily, width: int | None, layers: int | None, layer_kind: str | None) -> LayerPool:
    images = family.in_features > 64
    return LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        width=width or (64 if images else 40),
        layers=layers or 8,
        kind=layer_kind or ("layer_norm" if images else "residual"),
        constant_outputs=family.constant_outputs,
    )

"""Observations as one vector, or as a dict of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

OBSERVATIONS = ("flat", "dict")


def make_observation_space(observation: str, parts: Mapping[str, slice], limit: float) -> spaces.Space[Any]:
    """The space of one row's observations.

    Args:
        observation: "flat" for one `Box`, or "dict" for a `Dict` with a `Box` for each part that has a size.
        parts: slice of each part in a flat observation, by name, in order.
        limit: of absolute values.

    Raises:
        ValueError: another `observation`.
    """
    if observation not in OBSERVATIONS:
        raise ValueError(f"observation={observation!r}: must be one of {', '.join(map(repr, OBSERVATIONS))}")
    sizes = {name: part.stop - part.start for name, part in parts.items() if part.stop > part.start}
    if observation == "flat":
        return spaces.Box(-limit, limit, (sum(sizes.values()),), np.float32)
    return spaces.Dict({name: spaces.Box(-limit, limit, (size,), np.float32) for name, size in sizes.items()})


def format_observation(
    flat: NDArray[np.float32] | Tensor, parts: Mapping[str, slice], space: spaces.Space[Any], *, row: int | None = None
) -> Any:
    """Observations of a process as elements of a space.

    Args:
        flat: (n, size) float32, an array or a tensor.
        parts: slice of each part in a flat observation, by name.
        space: of one row's observation, see `make_observation_space`.
        row: index of the row whose observation is returned, or None for all.
    """
    chosen = flat if row is None else flat[row]
    if isinstance(space, spaces.Dict):
        return {name: chosen[..., parts[name]] for name in space}
    return chosen

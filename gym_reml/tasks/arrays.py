"""Arrays of the user's: read, checked, and kept as copies that nothing can change."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def immutable(values: NDArray[Any]) -> NDArray[Any]:
    """A copy that nobody can write to, nor make writeable; the array itself if it is one already."""
    base = values
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, bytes):
        return values
    return np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape)


def read_array(argument: str, values: ArrayLike, dtype: type | None = None) -> NDArray[Any]:
    """An array of what a user gave as `argument`; it may share memory with that.

    Raises:
        ValueError: no numbers, or rows of different lengths.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: must be an array of numbers ({error})") from error


def read_finite(argument: str, values: ArrayLike) -> NDArray[np.float32]:
    """An immutable float32 copy.

    Raises:
        ValueError: no numbers, or some that are not finite as float32.
    """
    # Numbers too small for float32 become 0, as they should; those too large are told below.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        numbers = read_array(argument, values, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{argument}: must be finite, as float32")
    return immutable(numbers)


def standardised(values: NDArray[Any], known: NDArray[Any]) -> NDArray[np.float32]:
    """The values shifted and scaled such that `known` has mean 0 and deviation 1 over all axes but the last.

    What never varies in `known` is shifted only.
    """
    axes = tuple(range(known.ndim - 1))
    with np.errstate(under="ignore"):
        mean = known.mean(axis=axes, dtype=np.float64)
        deviation = known.std(axis=axes, dtype=np.float64)
        shifted = (values - mean) / np.where(deviation > 0.0, deviation, 1.0)
        return shifted.astype(np.float32)

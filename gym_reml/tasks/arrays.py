"""The user's arrays: reading, validation and immutable copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def immutable(values: NDArray[Any]) -> NDArray[Any]:
    """A copy that cannot be made writeable; the array itself if it already is such a copy."""
    base = values
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, bytes):
        return values
    return np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape)


def read_array(argument: str, values: ArrayLike, dtype: type | None = None) -> NDArray[Any]:
    """A user's array, which may share memory with `values`; errors name `argument`.

    Raises:
        ValueError: not numbers, or rows of different lengths.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: must be an array of numbers ({error})") from error


def read_finite(argument: str, values: ArrayLike) -> NDArray[np.float32]:
    """An immutable float32 copy of a user's array; errors name `argument`.

    Raises:
        ValueError: not numbers, or values that are not finite as float32.
    """
    # Numbers too small for float32 become 0; those too large become infinite and are reported below.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        numbers = read_array(argument, values, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{argument}: must be finite, as float32")
    return immutable(numbers)


def standardised(values: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float32]:
    """Shifts and scales `values` such that `reference` has mean 0 and standard deviation 1 over all axes but the last.

    Features that are constant in `reference` are only shifted.
    """
    axes = tuple(range(reference.ndim - 1))
    with np.errstate(under="ignore"):
        mean = reference.mean(axis=axes, dtype=np.float64)
        deviation = reference.std(axis=axes, dtype=np.float64)
        shifted = (values - mean) / np.where(deviation > 0.0, deviation, 1.0)
        return shifted.astype(np.float32)

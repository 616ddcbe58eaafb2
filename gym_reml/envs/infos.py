"""Infos of n rows: as one row's plain values, with Gymnasium's masks, and two of them as one.

An info is a dict of arrays (n, ...) by name, or of such dicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def only_row(info: dict[str, Any]) -> dict[str, Any]:
    """The info of the only row: plain Python values, and arrays, the caller's own, where a row has several numbers."""
    plain: dict[str, Any] = {}
    for name, values in info.items():
        if isinstance(values, dict):
            plain[name] = only_row(values)
        else:
            plain[name] = values.item() if values.ndim == 1 else values[0].copy()
    return plain


def with_masks(info: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Gymnasium's vector info: values of the rows in `mask` (zero elsewhere), and beside each name the mask."""
    if not mask.any():
        return {}
    masked: dict[str, Any] = {}
    for name, values in info.items():
        masked[name] = with_masks(values, mask) if isinstance(values, dict) else _blank(values, mask)
        masked[f"_{name}"] = mask.copy()
    return masked


def _blank(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    if mask.all():
        return values
    blanked = values.copy()
    blanked[~mask] = 0
    return blanked


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two vector infos about different rows, as one."""
    both = dict(first)
    for name, values in second.items():
        if name.startswith("_"):
            both[name] = values | first[name] if name in first else values
        elif name not in first:
            both[name] = values
        elif isinstance(values, dict):
            both[name] = merged(first[name], values)
        else:
            mask = second[f"_{name}"].reshape(-1, *(1,) * (values.ndim - 1))
            both[name] = np.where(mask, values, first[name])
    return both

"""Conversions of infos: of a single row, with Gymnasium's masks, and merged.

An info of n rows is a dict of arrays (n, ...) by name, or of such dicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def only_row(info: dict[str, Any]) -> dict[str, Any]:
    """The info of the only row: Python scalars, and copies of arrays where a row has several numbers."""
    plain: dict[str, Any] = {}
    for name, values in info.items():
        if isinstance(values, dict):
            plain[name] = only_row(values)
        else:
            plain[name] = values.item() if values.ndim == 1 else values[0].copy()
    return plain


def with_masks(info: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Gymnasium's vector info: values of the rows in `mask` (0 elsewhere), and the mask as `_name` for each name."""
    present = np.count_nonzero(mask)
    return _masked(info, mask, present == len(mask)) if present else {}


def _masked(info: dict[str, Any], mask: NDArray[np.bool_], all_rows: bool) -> dict[str, Any]:
    masked: dict[str, Any] = {}
    for name, values in info.items():
        if isinstance(values, dict):
            masked[name] = _masked(values, mask, all_rows)
        elif all_rows:
            masked[name] = values
        else:
            masked[name] = values.copy()
            masked[name][~mask] = 0
        masked[f"_{name}"] = mask.copy()
    return masked


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One vector info from two about different rows."""
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

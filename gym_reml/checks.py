"""Checks of numbers given by users: errors name the argument, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "biuf"
"""Kinds of numpy dtypes that are numbers: bool, int, unsigned int, float."""

Arrays = dict[str, NDArray[Any]]


def is_integer(value: Any) -> bool:
    """Whether `value` is a Python or numpy integer; bool does not count."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether `value` is a real Python or numpy number; bool does not count."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_integer(argument: str, value: Any, least: int = 1) -> None:
    """Raises a ValueError that names the argument unless the value is an integer of at least `least`."""
    if not is_integer(value) or value < least:
        allowed = {0: "an integer that is not negative", 1: "a positive integer"}
        raise ValueError(f"{argument}={value!r}: must be {allowed.get(least, f'an integer of at least {least}')}")


def check_several(argument: str, values: Any, what: str, fine: Callable[[Any], bool]) -> None:
    """Raises a ValueError that names the argument unless the values are a sequence of numbers that are all fine.

    Args:
        argument: its name.
        values: given by a user.
        what: the values that may be given, in words.
        fine: whether a number may be among them.
    """
    several = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) and len(values) > 0
    if not several or not all(is_number(value) and fine(value) for value in values):
        raise ValueError(f"{argument}={values!r}: must be a sequence of {what}")


def read_number(name: str, value: Any) -> float:
    """A scalar that an environment returned as `name`: a number, or an array or tensor with exactly one element.

    Raises:
        ValueError: anything else; the message names it.
    """
    # numpy cannot convert tensors that require gradients or lie on another device.
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r}: must be one number") from error
    if array.shape not in ((), (1,)) or array.dtype.kind not in NUMBERS:
        raise ValueError(f"{name}={value!r}: must be one number, found {array.dtype} of shape {array.shape}")
    return float(array.reshape(()))


def read_parameters(given: Any, like: Arrays, *, rows: NDArray[np.int64], count: int) -> Arrays:
    """Task parameters given by a user in `reset(options={"task": ...})`, checked and converted.

    Args:
        given: each parameter by name: one value for all rows, or one for each of the `count` rows.
        like: the expected names, with arrays (1, ...) of the expected shapes and dtypes.
        rows: (k,) indices of the rows that are reset.
        count: number of rows, n.

    Returns:
        By name (k, ...), in the dtypes of `like`.

    Raises:
        ValueError: no dict, other names, or values of another shape, not finite, or not integers where they must be.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"options: task={given!r}: must be a dict of {_names(like)}")
    # A vector environment's info["task"] can be passed as it is: its masks, `_name`, are ignored.
    values = {name: value for name, value in given.items() if name in like or str(name)[:1] != "_"}
    if set(values) != set(like):
        raise ValueError(f"options: task: has {_names(values)}, must have {_names(like)}")
    return {name: _read_parameter(name, values[name], template, rows, count) for name, template in like.items()}


def check_places(name: str, places: NDArray[Any], length: int) -> None:
    """Raises a ValueError if any task parameter in `places` is not an index from 0 to `length` - 1."""
    outside = np.unique(places[(places < 0) | (places >= length)])
    if len(outside):
        raise ValueError(f"options: task: {name}={outside.tolist()}: must be from 0 to {length - 1}")


def _names(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _read_parameter(name: str, value: Any, template: NDArray[Any], rows: NDArray[np.int64], count: int) -> NDArray[Any]:
    shape = template.shape[1:]
    wrong = f"options: task: {name}={value!r}: must be"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wrong} numbers of shape {shape}") from error
    if array.dtype.kind not in NUMBERS or not np.isfinite(array).all():
        raise ValueError(f"{wrong} finite numbers")
    if template.dtype.kind in "biu" and (array != np.rint(array)).any():
        raise ValueError(f"{wrong} integers")
    if array.shape == (count, *shape):
        return array[rows].astype(template.dtype)
    if array.shape == shape:
        return np.repeat(array[None].astype(template.dtype), len(rows), axis=0)
    raise ValueError(f"{wrong} of shape {shape}, or for all rows {(count, *shape)}")

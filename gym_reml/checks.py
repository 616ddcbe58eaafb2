"""Checks of numbers that come from outside: a wrong one is named, with its value and what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "biuf"
"""Kinds of numpy types that are numbers."""

Arrays = dict[str, NDArray[Any]]


def is_integer(value: Any) -> bool:
    """Whether it is an integer, of Python or numpy; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number, of Python or numpy; True and False are none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_integer(argument: str, value: Any, least: int = 1) -> None:
    """Raises a ValueError that names the argument if the value is no integer of at least `least`."""
    if not is_integer(value) or value < least:
        wanted = {0: "an integer that is not negative", 1: "a positive integer"}
        raise ValueError(f"{argument}={value!r}: must be {wanted.get(least, f'an integer of at least {least}')}")


def read_number(name: str, value: Any) -> float:
    """The one number that an environment gave as `name`: a number, or an array or tensor that holds exactly one.

    Raises:
        ValueError: anything else; the message names it.
    """
    # Tensors that need a gradient, or lie elsewhere, are no arrays before this.
    held = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array = np.asarray(held)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r}: must be one number") from error
    if array.shape not in ((), (1,)) or array.dtype.kind not in NUMBERS:
        raise ValueError(f"{name}={value!r}: must be one number, found {array.dtype} of shape {array.shape}")
    return float(array.reshape(()))


def read_parameters(given: Any, like: Arrays, rows: NDArray[np.int64], count: int) -> Arrays:
    """Parameters of tasks that a user gave, with names, shapes and types of `like`, (1, ...) each; see `read_task`."""
    if not isinstance(given, Mapping):
        raise ValueError(f"options: task={given!r}: must be a dict of {_names(like)}")
    # Infos of vector environments have a mask beside every name: handed back, they are passed over.
    values = {name: value for name, value in given.items() if name in like or str(name)[:1] != "_"}
    if set(values) != set(like):
        raise ValueError(f"options: task: has {_names(values)}, must have {_names(like)}")
    return {name: _read_parameter(name, values[name], blank, rows, count) for name, blank in like.items()}


def check_places(name: str, places: NDArray[Any], length: int) -> None:
    """Raises a ValueError where a parameter that says a place in a list lies outside of it."""
    outside = np.unique(places[(places < 0) | (places >= length)])
    if len(outside):
        raise ValueError(f"options: task: {name}={outside.tolist()}: must be from 0 to {length - 1}")


def _names(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _read_parameter(name: str, value: Any, blank: NDArray[Any], rows: NDArray[np.int64], count: int) -> NDArray[Any]:
    wrong = f"options: task: {name}={value!r}: must be"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wrong} numbers of shape {blank.shape[1:]}") from error
    if array.dtype.kind not in NUMBERS or not np.isfinite(array).all():
        raise ValueError(f"{wrong} finite numbers")
    if blank.dtype.kind in "biu" and (array != np.rint(array)).any():
        raise ValueError(f"{wrong} integers")
    if array.shape == (count, *blank.shape[1:]):
        return array[rows].astype(blank.dtype)
    if array.shape == blank.shape[1:]:
        return np.repeat(array[None].astype(blank.dtype), len(rows), axis=0)
    raise ValueError(f"{wrong} of shape {blank.shape[1:]}, or for all rows {(count, *blank.shape[1:])}")

"""Checks of numbers that come from outside: a wrong one is named, with its value and what would be right."""

from __future__ import annotations

from typing import Any

import numpy as np


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
    if array.shape not in ((), (1,)) or array.dtype.kind not in "biuf":
        raise ValueError(f"{name}={value!r}: must be one number, found {array.dtype} of shape {array.shape}")
    return float(array.reshape(()))

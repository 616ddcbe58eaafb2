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

"""Uniform random numbers of many generators by one compiled loop: needs `pip install gym-reml[fast]`.

The numbers are those of `numpy.random.Generator.random`, bit for bit: the loop calls numpy's own function. It runs
without Python's global lock, so threads can draw for different rows at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.experimental import function_type  # noqa: F401  (makes functions by their address known)
from numpy.typing import NDArray

from gym_reml.streams import Column

_NEXT = types.float64(types.intp)


class _NextDouble(types.WrapperAddressProtocol):
    """numpy's function from a bit generator's state to its next number, by its address."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        return _NEXT


_SIGNATURE = types.void(types.FunctionType(_NEXT), types.int64[::1], types.float64[:, ::1])


@numba.njit([_SIGNATURE], cache=True, nogil=True)
def _fill(next_double: Any, states: Any, out: Any) -> None:
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = next_double(states[row])


def fill(generators: Sequence[np.random.Generator], out: NDArray[np.float64]) -> bool:
    """Fills `out` (n, count) with uniform numbers in [0, 1), each row by its generator.

    Returns:
        Whether it did: only if all generators are of numpy's default kind.
    """
    states = (generators if isinstance(generators, Column) else Column(generators)).states
    if states is None:
        return False
    address = ctypes.cast(generators[0].bit_generator.ctypes.next_double, ctypes.c_void_p).value
    _fill(_NextDouble(address or 0), states, out)
    return True

"""The interface of a process of n rows, and the result of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.streams import RowStreams


class Process(Protocol):
    """n independent episodes (rows) that are computed together.

    Attributes:
        count: n.
    """

    count: int

    @property
    def streams(self) -> list[RowStreams]:
        """The rows' random streams; empty before the first `seed`."""

    def seed(self, rows: Sequence[int], streams: Sequence[RowStreams]) -> None:
        """Sets the random streams of these rows, their only source of randomness."""

    def reset(self, rows: NDArray[np.int64] | None = None, given: Any = None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all), on new tasks or on the tasks returned by `read_task`.

        Returns:
            The info of all rows, with the same names as after a step: arrays (n, ...) and dicts of such arrays.
        """

    def read_task(self, given: Any, rows: NDArray[np.int64]) -> Any:
        """Reads a user's tasks for these rows, changing nothing.

        Raises:
            ValueError: they are not tasks of this process.
        """

    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows, (n, size)."""


@dataclass
class Outcome:
    """Results of one step of n rows.

    Attributes:
        observation: (n, size) float32; a tensor where the process makes them on a device.
        reward: (n,) float64.
        terminated: (n,) bool.
        info: arrays (n, ...) by name, and dicts of such arrays.
    """

    observation: NDArray[np.float32] | Tensor
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    info: dict[str, Any]

"""What every process of n rows is, and what a step of one returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gym_reml.streams import RowStreams


class Process(Protocol):
    """n independent rows that are computed together, each in an episode of its own.

    Attributes:
        count: n.
    """

    count: int

    @property
    def streams(self) -> list[RowStreams]:
        """The rows' generators, or none before the first `seed`."""

    def seed(self, rows: Sequence[int], streams: Sequence[RowStreams]) -> None:
        """Gives rows their random streams; everything these rows do follows from them."""

    def reset(self, rows: NDArray[np.int64] | None = None, given: Any = None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all), on new tasks or on those that `read_task` made out.

        Returns:
            info about all rows, arrays (n, ...) by name and dicts of such: the names that a step's info has.
        """

    def read_task(self, given: Any, rows: NDArray[np.int64]) -> Any:
        """The tasks that a user asks for in these rows; a ValueError where they are none. Nothing changes."""

    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows (n, size)."""


@dataclass
class Outcome:
    """What one step brought, n rows.

    Attributes:
        observation: (n, size) float32.
        reward: (n,) float64.
        terminated: (n,) bool.
        info: arrays (n, ...) by name, and dicts of such.
    """

    observation: NDArray[np.float32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    info: dict[str, Any]

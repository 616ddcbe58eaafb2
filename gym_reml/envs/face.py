"""What the faces of a process of n rows share: the single `Env` (`RowEnv`) and the `VectorEnv` (`RowsVectorEnv`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gym_reml.outcome import Outcome
from gym_reml.streams import RowStreams


class Process(Protocol):
    """n independent rows that are computed together, each in an episode of its own.

    Attributes:
        count: n.
        streams: the rows' generators, or none before the first `seed`.
    """

    count: int
    streams: list[RowStreams]

    def seed(self, rows: Sequence[int], streams: Sequence[RowStreams]) -> None:
        """Gives rows their random streams; everything these rows do follows from them."""

    def reset(self, rows: NDArray[np.int64] | None = None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all), and informs about all of them."""

    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows (n, size)."""


class Recorder(Protocol):
    """The history of one row's episode, for drawing.

    Attributes:
        row: which.
    """

    row: int

    def restart(self, process: Any) -> None:
        """Forgets the last episode."""


class Face(ABC):
    """A view of a process: what differs from process to process, for faces that need not know which it is."""

    _recorders: Sequence[Recorder] = ()

    @property
    @abstractmethod
    def process(self) -> Process:
        """The rows."""

    @property
    @abstractmethod
    def split(self) -> str:
        """Whether tasks are those of meta-training, validation or testing: "train", "validation" or "test"."""

    @abstractmethod
    def _act(self, actions: Any) -> Outcome:
        """Reads n actions, steps and records; a ValueError where an action is none."""

    @abstractmethod
    def _draw(self, recorder: Any) -> Any:
        """The recorder's row as a frame of the render mode."""

    def _act_in_part(self, actions: Any, idle: NDArray[np.int64]) -> Outcome:
        """The same where what the rows `idle` do is thrown away, and must leave nothing behind."""
        return self._act(actions)

    def _obey(self, options: dict[str, Any] | None) -> None:  # noqa: B027  (there may be no options)
        """Does what options of `reset` ask for."""

    def _restart(self, rows: NDArray[np.int64] | None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all)."""
        info = self.process.reset(rows)
        for recorder in self._recorders:
            if rows is None or recorder.row in rows:
                recorder.restart(self.process)
        return info

    def _shape(self, flat: NDArray[np.float32], row: int | None) -> Any:
        """Observations (n, size) as the space has them; of one row, or of all (None)."""
        return flat if row is None else flat[row]

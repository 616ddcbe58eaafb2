"""The part shared by the single `Env` (`ProcessEnv`) and the `VectorEnv` (`ProcessVectorEnv`) of a process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.mdp.process import Outcome, Process
from gym_reml.streams import RowStreams


class Recorder(Protocol):
    """The history of one row's episode, for rendering.

    Attributes:
        row: index of the row.
    """

    row: int

    def restart(self, process: Any) -> None:
        """Clears the history when an episode begins."""


Method = TypeVar("Method", bound=Callable[..., Any])


def for_rows(*, takes_row: bool) -> Callable[[Method], Method]:
    """Marks a method of a vector environment as returning a result for each row.

    Adapters that treat rows as single environments, such as `gym_reml.sb3.NativeVecEnv`, call only marked methods.

    Args:
        takes_row: whether the method takes `row=...` and returns the result of that row; otherwise it returns a
            sequence with the results of all rows.
    """

    def mark(method: Method) -> Method:
        method.takes_row = takes_row  # type: ignore[attr-defined]
        return method

    return mark


class ProcessView(ABC):
    """Base of environments over a process of n rows; subclasses add what depends on the kind of process.

    Attributes:
        process: of n rows.
        split: of the tasks: "train", "validation" or "test".
        render_mode: of frames, or None.
    """

    process: Process
    split: str
    render_mode: str | None
    _idle_streams: RowStreams | None = None
    """What rows draw from that are reset instead of stepped, but computed still; None where acting draws nothing."""
    _options: ClassVar[tuple[str, ...]] = ("task",)
    """Options of `reset` in single and vector environments."""

    def __init__(self, process: Process, *, split: str, render_mode: str | None) -> None:
        """Takes a process before its first reset."""
        self.process, self.split, self.render_mode = process, split, render_mode
        self._recorders: Sequence[Any] = (
            [] if render_mode is None else [self._make_recorder(row) for row in range(process.count)]
        )
        self._started = False

    @property
    def _known_options(self) -> tuple[str, ...]:
        return self._options

    @abstractmethod
    def _make_recorder(self, row: int) -> Recorder:
        """A recorder of a row, for `_draw`."""

    @abstractmethod
    def _draw(self, recorder: Any) -> Any:
        """Renders the recorder's row in the render mode."""

    @abstractmethod
    def _act(self, actions: Any) -> Outcome:
        """Decodes n actions, steps the process and records; raises a ValueError for invalid actions."""

    def _act_with_idle_rows(self, actions: Any, idle: NDArray[np.int64]) -> Outcome:
        """As `_act`, but without lasting effect on the rows `idle`, whose outcome is not used."""
        if self._idle_streams is None:
            return self._act(actions)
        rows = idle.tolist()
        own = [self.process.streams[row] for row in rows]
        self.process.seed(rows, [self._idle_streams] * len(rows))
        try:
            return self._act(actions)
        finally:
            self.process.seed(rows, own)

    def _read_options(self, options: Any) -> dict[str, Any]:
        """The options of `reset`, checked; a ValueError lists the choices."""
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"options={options!r}: must be a dict, or None")
        for name in options or ():
            if name not in self._known_options:
                choices = ", ".join(map(repr, self._known_options))
                raise ValueError(f"options: {name!r} is no option of reset(); choices: {choices}")
        return dict(options or {})

    def _apply_options(self, options: dict[str, Any]) -> None:  # noqa: B027  (there may be no options)
        """Applies options of `reset` other than the task."""

    def _restart(self, rows: NDArray[np.int64] | None, given: Any = None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all), on given or newly drawn tasks; returns their info."""
        info = self.process.reset(rows, given)
        self._started = True
        for recorder in self._recorders:
            if rows is None or recorder.row in rows:
                recorder.restart(self.process)
        return info

    def _check_started(self, method: str) -> None:
        """Raises Gymnasium's `ResetNeeded` before the first reset."""
        if not self._started:
            raise gym.error.ResetNeeded(f"call reset() before {method}()")

    @property
    def device(self) -> torch.device:
        """The device that is computed on."""
        return torch.device("cpu")

    def _process_observation(self) -> Any:
        """The observations of all rows, (n, size): an array, or a tensor."""
        return self.process.observe()

    def _format_observation(self, flat: Any, row: int | None) -> Any:
        """Observations (n, size) as elements of the observation space; of one row, or of all (None)."""
        return flat if row is None else flat[row]

    def _format_info(self, info: dict[str, Any]) -> dict[str, Any]:
        """One row's info as the single environment returns it."""
        return info

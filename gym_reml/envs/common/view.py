"""What the single `Env` (`ProcessEnv`) and the `VectorEnv` (`ProcessVectorEnv`) over a process of n rows share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.mdp.process import Outcome, Process


class Recorder(Protocol):
    """The history of one row's episode, for rendering.

    Attributes:
        row: which.
    """

    row: int

    def restart(self, process: Any) -> None:
        """Forgets the last episode."""


Method = TypeVar("Method", bound=Callable[..., Any])


def for_rows(*, takes_row: bool) -> Callable[[Method], Method]:
    """Marks a method of a vector environment that has something for each row.

    Adapters that treat rows as environments of their own, as `gym_reml.sb3.NativeVecEnv`, call no others.

    Args:
        takes_row: whether the method is called with `row=...` and answers for that row, or once, and gives a sequence
            with an entry for each row.
    """

    def mark(method: Method) -> Method:
        method.takes_row = takes_row  # type: ignore[attr-defined]
        return method

    return mark


class ProcessView(ABC):
    """A view of a process of n rows: what differs between kinds of processes is left to subclasses.

    Attributes:
        process: the rows.
        split: whether tasks are those of meta-training, validation or testing: "train", "validation" or "test".
        render_mode: how frames are drawn, or None.
    """

    process: Process
    split: str
    render_mode: str | None
    _options: ClassVar[tuple[str, ...]] = ("task",)
    """The options of `reset` that single and vector environments have."""

    def __init__(self, process: Process, *, split: str, render_mode: str | None) -> None:
        """Takes a process that has not begun."""
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
        """Records what `_draw` shows of a row."""

    @abstractmethod
    def _draw(self, recorder: Any) -> Any:
        """The recorder's row as a frame of the render mode."""

    @abstractmethod
    def _act(self, actions: Any) -> Outcome:
        """Reads n actions, steps and records; a ValueError where an action is none."""

    def _act_with_idle_rows(self, actions: Any, idle: NDArray[np.int64]) -> Outcome:
        """The same where the outcome of the rows `idle` is not used, and must leave nothing behind."""
        return self._act(actions)

    def _read_options(self, options: Any) -> dict[str, Any]:
        """The options of `reset`, or a ValueError that lists the choices."""
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"options={options!r}: must be a dict, or None")
        for name in options or ():
            if name not in self._known_options:
                choices = ", ".join(map(repr, self._known_options))
                raise ValueError(f"options: {name!r} is no option of reset(); choices: {choices}")
        return dict(options or {})

    def _apply_options(self, options: dict[str, Any]) -> None:  # noqa: B027  (there may be no options)
        """Does what options of `reset` ask for, but for the task."""

    def _restart(self, rows: NDArray[np.int64] | None, given: Any = None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all), on tasks that were given or on new ones; gives their info."""
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

    def _format_observation(self, flat: NDArray[np.float32], row: int | None) -> Any:
        """Observations (n, size) as the space has them; of one row, or of all (None)."""
        return flat if row is None else flat[row]

    def _format_info(self, info: dict[str, Any]) -> dict[str, Any]:
        """One row's info as the single environment gives it."""
        return info

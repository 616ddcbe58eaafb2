"""`LockTrial-v0`: a custom kind of trial, with environments and view, as a user would write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import check_integer
from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.trials.envs import TrialEnv, TrialVectorEnv
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.trial import InnerProcess, Rows
from gym_reml.rendering.canvas import LEFT, Canvas
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.trial import TrialView
from gym_reml.rendering.trial.returns import BOTTOM, TOP
from gym_reml.streams import RowStreams


class Locks(InnerProcess):
    """n locks that open at one number; the distance to it is observed after each attempt, in numbers."""

    name = "lock"
    reward_limits = (0.0, 1.0)

    def __init__(self, count: int, numbers: int) -> None:
        """Creates n locks with so many numbers."""
        for argument, value in (("num_envs", count), ("numbers", numbers)):
            check_integer(argument, value)
        self.count, self.numbers, self.actions = count, numbers, numbers
        self.observation_limits = np.array([[0.0], [numbers]])
        self._number = np.zeros(count, dtype=np.int64)
        self._distance = np.zeros((count, 1))

    @property
    def tasks(self) -> dict[str, NDArray[Any]]:
        return {"number": self._number.copy()}

    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        self._number[rows] = [stream.task.integers(self.numbers) for stream in streams]

    def assign(self, rows: Rows, tasks: dict[str, NDArray[Any]]) -> None:
        self._number[rows] = tasks["number"]

    def begin(self, rows: Rows) -> None:
        self._distance = self._distance.copy()
        self._distance[rows] = 0.0

    def observe(self) -> NDArray[Any]:
        return self._distance

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self._distance = np.abs(actions - self._number)[:, None].astype(np.float64)
        opened = actions == self._number
        return opened.astype(np.float64), opened


class LockTrialEnv(TrialEnv):
    """Find the number that opens a lock, in each inner episode."""

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        numbers: int = 4,
        episodes: int = 3,
        burn_in: int = 0,
        split: str = "train",
    ) -> None:
        super().__init__(Locks(1, numbers), TrialBudget(episodes, burn_in), split=split, render_mode=render_mode)


class LockTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of locks."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        numbers: int = 4,
        episodes: int = 3,
        burn_in: int = 0,
        split: str = "train",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(
            Locks(num_envs, numbers),
            TrialBudget(episodes, burn_in),
            split=split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
        )


class LockView(TrialView):
    """The attempts as dots above their numbers."""

    def title(self, frame: TrialFrame) -> str:
        return f"Opening one lock: {frame.horizon} times"

    def clock(self, frame: TrialFrame) -> str:
        return f"{frame.steps} attempts, {frame.total:g} of them right"

    def picture(self, canvas: Canvas, frame: TrialFrame) -> None:
        for step, choice in enumerate(frame.choices.tolist()):
            canvas.dot(LEFT + 20.0 + 8.0 * step, min(TOP + 20.0 + 12.0 * choice, BOTTOM - 20.0), 4.0, (0, 0, 0))

    def lines(self, frame: TrialFrame) -> list[str]:
        return [f"attempts  {' '.join(map(str, frame.choices.tolist()))}", f"number    {frame.task['number']}"]

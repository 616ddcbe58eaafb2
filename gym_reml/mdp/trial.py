"""Trials: one Gymnasium episode is several inner episodes on one task (Duan et al. 2016, RL², section 2.2).

The agent is not told the task. It finds out within the trial, from what it did and what came of it: the observation is
the inner one, joined by the previous action, the previous reward and whether an inner episode has just ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.checks import read_parameters
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.process import Outcome
from gym_reml.spaces.base import read_integers, read_numbers
from gym_reml.streams import RowStreams

Rows = NDArray[np.int64]
REWARD_LIMIT = 20.0
"""What rewards are clipped to in observations where they have no bounds."""


class InnerProcess(ABC):
    """n tasks, each in an inner episode of its own.

    All chance of a trial is drawn when the trial begins: rows depend on nothing but their streams, and no step draws.

    Attributes:
        name: what people call the tasks.
        count: n.
        observation_space: of one row's inner episode, a box of one dimension.
        action_space: of one row.
        reward_limits: between which rewards lie, in observations at least.
    """

    name: ClassVar[str]
    count: int
    observation_space: spaces.Box
    action_space: spaces.Discrete | spaces.Box
    reward_limits: tuple[float, float]

    @abstractmethod
    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        """New tasks for these rows, and all chance of their trials; one stream a row."""

    @property
    @abstractmethod
    def tasks(self) -> dict[str, NDArray[Any]]:
        """Copies of the tasks' parameters by name, each (n, ...)."""

    @abstractmethod
    def assign(self, rows: Rows, tasks: dict[str, NDArray[Any]]) -> None:
        """Gives these rows these tasks, in the form of `tasks`; what was drawn for their trials stays."""

    def check_tasks(self, tasks: dict[str, NDArray[Any]]) -> None:  # noqa: B027  (any numbers may do)
        """Raises a ValueError where finite numbers of the right shape are no task, such as no probabilities."""

    @abstractmethod
    def begin(self, rows: Rows) -> None:
        """Those rows start another inner episode on the same task."""

    @abstractmethod
    def observe(self) -> NDArray[Any]:
        """Inner observations (n, size)."""

    @abstractmethod
    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Rewards (n,), and which inner episodes are over (n,), be it by their end or by their time limit."""


class TrialProcess:
    """n trials side by side.

    Attributes:
        inner: the tasks.
        budget: how many inner episodes a trial has, and how many of them earn nothing.
        count: n.
        streams: the rows' generators, or none before the first `seed`.
        observation_space, action_space: of one row.
        action_width: numbers of an action.
        watched: whether `arrived` is wanted.
        arrived: inner observations (n, size) at the end of the last step, before ended inner episodes began anew.
    """

    watched = False
    arrived: NDArray[Any]

    def __init__(self, inner: InnerProcess, budget: TrialBudget) -> None:
        """Trials that have not begun."""
        self.inner, self.budget, self.count = inner, budget, inner.count
        self.streams: list[RowStreams] = []
        self.action_space = inner.action_space
        self.observation_space = trial_space(inner.observation_space, inner.action_space, inner.reward_limits)
        self.action_width = (
            1 if isinstance(self.action_space, spaces.Discrete) else int(np.prod(self.action_space.shape))
        )
        self._actions = np.zeros((self.count, self.action_width))
        self._rewards = np.zeros(self.count)
        self._ended = np.ones(self.count, dtype=np.bool_)
        self._episode = np.zeros(self.count, dtype=np.int64)
        self._every = np.arange(self.count)
        self._tasks: dict[str, NDArray[Any]] = {}

    def seed(self, rows: Sequence[int], streams: Sequence[RowStreams]) -> None:
        """Gives rows their random streams; everything these rows do follows from them."""
        if not self.streams:
            self.streams = list(streams)
            return
        for row, stream in zip(rows, streams, strict=True):
            self.streams[row] = stream

    def read_task(self, given: Any, rows: Rows) -> dict[str, NDArray[Any]]:
        """The tasks that a user asks for in these rows, as `checks.read_parameters` reads them.

        Raises:
            ValueError: they are none.
        """
        like = {name: values[:1] for name, values in self.inner.tasks.items()}
        tasks = read_parameters(given, like, rows, self.count)
        self.inner.check_tasks(tasks)
        return tasks

    def reset(self, rows: Rows | None = None, given: dict[str, NDArray[Any]] | None = None) -> dict[str, Any]:
        """Starts new trials in these rows (None: all).

        Args:
            rows: which.
            given: their tasks, as `read_task` gives them, or None for new ones.

        Returns:
            info with the names that a step's has; what a step says is 0.
        """
        rows = self._every if rows is None else rows
        self.inner.draw(rows, [self.streams[row] for row in rows])
        if given is not None:
            self.inner.assign(rows, given)
        self.inner.begin(rows)
        self._actions[rows], self._rewards[rows], self._ended[rows], self._episode[rows] = 0.0, 0.0, True, 0
        # Copies, which infos share until the next reset: nothing writes into them.
        self._tasks = self.inner.tasks
        return self._info(np.zeros(self.count, dtype=np.int64), np.zeros(self.count))

    def _info(self, episode: NDArray[np.int64], reward: NDArray[np.float64]) -> dict[str, Any]:
        return {"task": dict(self._tasks), "inner_episode": episode, "inner_reward": reward}

    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows (n, size)."""
        space, size = self.observation_space, self.inner.observation_space.shape[0]
        seen = np.zeros((self.count, space.shape[0]), dtype=np.float32)
        seen[:, :size] = self.inner.observe()
        if isinstance(self.action_space, spaces.Discrete):
            seen[self._every, size + self._actions[:, 0].astype(np.int64)] = 1.0
        else:
            seen[:, size:-2] = self._actions
        seen[:, -2] = np.minimum(np.maximum(self._rewards, space.low[-2]), space.high[-2])
        seen[:, -1] = self._ended
        return seen

    def read(self, actions: Any) -> NDArray[Any]:
        """n actions as an array; a ValueError where one is none."""
        if isinstance(self.action_space, spaces.Discrete):
            return read_integers(actions, (self.count,), int(self.action_space.n))
        return read_numbers(actions, (self.count, *self.action_space.shape))

    def step(self, actions: NDArray[Any]) -> Outcome:
        """One step of every row's inner episode; where that is over, the next one begins.

        A trial that is over must be reset: until then its steps earn nothing.

        Returns:
            The info holds "inner_episode" (n,) int64, the number of the inner episode that the step was in,
            "inner_reward" (n,) float64, what it paid whether or not that counts, and "task", parameters by name.
        """
        over = self._episode >= self.budget.horizon
        reward, ended = self.inner.step(actions)
        episode = self._episode.copy()
        earned = self.budget.counted(reward, episode + 1)
        if over.any():
            earned, ended = np.where(over, 0.0, earned), ended & ~over
        self._actions[:] = actions.reshape(self.count, -1)
        # Copies: a reset writes into these rows, and what was returned is the caller's.
        self._rewards, self._ended = reward.copy(), ended.copy()
        self._episode += ended
        if self.watched:
            self.arrived = self.inner.observe()
        if ended.any():
            self.inner.begin(np.flatnonzero(ended))
        terminated = self._episode >= self.budget.horizon
        return Outcome(self.observe(), earned, terminated, self._info(episode, reward.copy()))


def trial_space(inner: spaces.Box, action: spaces.Space[Any], reward_limits: tuple[float, float]) -> Any:
    """Of observations: the inner one; the flattened previous action, or zeros; the previous reward; 0 or 1."""
    flat = spaces.flatten_space(action)
    assert isinstance(flat, spaces.Box)
    low, high = np.minimum(flat.low, 0), np.maximum(flat.high, 0)
    return spaces.Box(
        np.concatenate([inner.low, low, reward_limits[:1], [0.0]]).astype(np.float32),
        np.concatenate([inner.high, high, reward_limits[1:], [1.0]]).astype(np.float32),
    )

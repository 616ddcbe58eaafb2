"""Trials: one episode is several inner episodes on one task (Duan et al. 2016, RL², section 2.2).

The task is hidden from the agent, which has to infer it within the trial: the observation is the inner one, joined by
the previous action, the previous reward and whether an inner episode has just ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gym_reml.checks import read_parameters
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.process import Outcome
from gym_reml.streams import RowStreams

Rows = NDArray[np.int64]
REWARD_LIMIT = 20.0
"""What rewards are clipped to in observations where they have no bounds."""


class InnerProcess(ABC):
    """n tasks, each in an inner episode of its own.

    All random numbers of a trial are drawn when the trial begins: rows depend on nothing but their streams, and no step
    draws.

    Attributes:
        name: what people call the tasks, and the name of their view in `gym_reml.rendering.trial.TRIAL_VIEWS`.
        count: n.
        observation_limits: (2, size) float, lowest and highest inner observation.
        actions: how many actions there are to choose from, or None where an action is `action_size` numbers.
        action_size: numbers of an action, each in [-1, 1]; 1 where there are actions to choose from.
        reward_limits: between which rewards lie, in observations at least.
    """

    name: ClassVar[str]
    count: int
    observation_limits: NDArray[np.float64]
    actions: int | None = None
    action_size: int = 1
    reward_limits: tuple[float, float] = (-REWARD_LIMIT, REWARD_LIMIT)

    @abstractmethod
    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        """New tasks for these rows, and all random numbers of their trials; one stream a row."""

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
        budget: how many inner episodes a trial has, and how many of them, the first ones, do not count.
        count: n.
        streams: the rows' generators, or none before the first `seed`.
        observation_limits: (2, size) float32, lowest and highest observation.
        watched: whether `arrived` is wanted.
        arrived: inner observations (n, size) at the end of the last step, before ended inner episodes began anew.
    """

    watched = False
    arrived: NDArray[Any]

    def __init__(self, inner: InnerProcess, budget: TrialBudget) -> None:
        """Trials that have not begun."""
        self.inner, self.budget, self.count = inner, budget, inner.count
        self.streams: list[RowStreams] = []
        # Where there are actions to choose from, they are observed one-hot.
        least, size = (-1.0, inner.action_size) if inner.actions is None else (0.0, inner.actions)
        action_limits = np.repeat([[least], [1.0]], size, axis=1)
        self.observation_limits = trial_limits(inner.observation_limits, action_limits, inner.reward_limits)
        self._actions = np.zeros((self.count, inner.action_size))
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
        tasks = read_parameters(given, like, rows=rows, count=self.count)
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
        (low, high), size = self.observation_limits, self.inner.observation_limits.shape[1]
        seen = np.zeros((self.count, len(low)), dtype=np.float32)
        seen[:, :size] = self.inner.observe()
        if self.inner.actions is None:
            seen[:, size:-2] = self._actions
        else:
            seen[self._every, size + self._actions[:, 0].astype(np.int64)] = 1.0
        seen[:, -2] = np.minimum(np.maximum(self._rewards, low[-2]), high[-2])
        seen[:, -1] = self._ended
        return seen

    def step(self, actions: NDArray[Any]) -> Outcome:
        """One step of every row's inner episode; where that is over, the next one begins.

        A trial that is over must be reset: until then the rewards of its steps are 0.

        Args:
            actions: (n,) int64, or (n, action_size) float32 in [-1, 1].

        Returns:
            The info holds "inner_episode" (n,) int64, the number of the inner episode that the step was in,
            "inner_reward" (n,) float64, its reward whether or not that counts, and "task", parameters by name.
        """
        over = self._episode >= self.budget.horizon
        reward, ended = self.inner.step(actions)
        episode = self._episode.copy()
        counted = self.budget.counted(reward, episode + 1)
        if over.any():
            counted, ended = np.where(over, 0.0, counted), ended & ~over
        self._actions[:] = actions.reshape(self.count, -1)
        # Copies: a reset writes into these rows, and what was returned is the caller's.
        self._rewards, self._ended = reward.copy(), ended.copy()
        self._episode += ended
        if self.watched:
            self.arrived = self.inner.observe()
        if ended.any():
            self.inner.begin(np.flatnonzero(ended))
        terminated = self._episode >= self.budget.horizon
        return Outcome(self.observe(), counted, terminated, self._info(episode, reward.copy()))


def trial_limits(observation: ArrayLike, action: ArrayLike, reward: ArrayLike) -> NDArray[np.float32]:
    """Lowest and highest observation of a trial, from those of its parts.

    Args:
        observation: (2, size), of inner observations.
        action: (2, size), of actions as they are observed; before the first one, zeros are.
        reward: (2,), of rewards.

    Returns:
        (2, total size): the inner observation, the previous action, its reward, and whether an inner episode ended.
    """
    low, high = np.asarray(action)
    shown = np.stack([np.minimum(low, 0.0), np.maximum(high, 0.0)])
    rest = np.array([reward, (0.0, 1.0)]).T
    return np.concatenate([observation, shown, rest], axis=1).astype(np.float32)

"""Trials: one episode consists of several inner episodes on one task (RL^2, Duan et al. 2016, arXiv:1611.02779, 2.2).

The agent has to infer the hidden task within the trial: an observation is the inner observation, the previous action,
the previous reward and whether an inner episode has just ended.
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
"""Magnitude to which unbounded rewards are clipped in observations."""


class InnerProcess(ABC):
    """n inner episodes, each on its own task.

    All random numbers of a trial are drawn when the trial begins: a row depends only on its own streams, and steps draw
    nothing.

    Attributes:
        name: name of the tasks, also of their view in `gym_reml.rendering.trial.TRIAL_VIEWS`.
        count: n.
        observation_limits: (2, size) float, lowest and highest inner observation.
        actions: number of discrete actions, or None if actions are continuous.
        action_size: length of an action: the number of continuous components, each in [-1, 1], or 1 if discrete.
        reward_limits: (lowest, highest) reward in observations.
    """

    name: ClassVar[str]
    count: int
    observation_limits: NDArray[np.float64]
    actions: int | None = None
    action_size: int = 1
    reward_limits: tuple[float, float] = (-REWARD_LIMIT, REWARD_LIMIT)

    @abstractmethod
    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        """Draws new tasks and all random numbers of their trials for these rows, from one stream per row."""

    @property
    @abstractmethod
    def tasks(self) -> dict[str, NDArray[Any]]:
        """Copies of the tasks' parameters by name, each (n, ...)."""

    @abstractmethod
    def assign(self, rows: Rows, tasks: dict[str, NDArray[Any]]) -> None:
        """Sets the tasks of these rows, in the form of `tasks`; random numbers drawn for their trials stay."""

    def check_tasks(self, tasks: dict[str, NDArray[Any]]) -> None:  # noqa: B027  (optional)
        """Raises a ValueError for finite parameters of the right shape that are not tasks; by default all are."""

    @abstractmethod
    def begin(self, rows: Rows) -> None:
        """Starts a new inner episode on the same task in these rows."""

    @abstractmethod
    def observe(self) -> NDArray[Any]:
        """Inner observations, (n, size)."""

    @abstractmethod
    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Rewards (n,) and which inner episodes ended (n,), by termination or by their time limit."""


class TrialProcess:
    """n trials side by side.

    Attributes:
        inner: the inner episodes and their tasks.
        budget: number of inner episodes of a trial, and of the first ones that are not rewarded.
        count: n.
        streams: the rows' random streams; empty before the first `seed`.
        observation_limits: (2, size) float32, lowest and highest observation.
        watched: whether to record `arrived`.
        arrived: inner observations (n, size) after the last step, before the next inner episodes began; for rendering.
    """

    watched = False
    arrived: NDArray[Any]

    def __init__(self, inner: InnerProcess, budget: TrialBudget) -> None:
        """Creates the trials; call `seed` and `reset` before the first step."""
        self.inner, self.budget, self.count = inner, budget, inner.count
        self.streams: list[RowStreams] = []
        # Discrete actions are observed one-hot.
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
        """Sets the random streams of these rows, their only source of randomness."""
        if not self.streams:
            self.streams = list(streams)
            return
        for row, stream in zip(rows, streams, strict=True):
            self.streams[row] = stream

    def read_task(self, given: Any, rows: Rows) -> dict[str, NDArray[Any]]:
        """Reads a user's tasks for these rows; see `checks.read_parameters`.

        Raises:
            ValueError: they are not tasks of this process.
        """
        like = {name: values[:1] for name, values in self.inner.tasks.items()}
        tasks = read_parameters(given, like, rows=rows, count=self.count)
        self.inner.check_tasks(tasks)
        return tasks

    def reset(self, rows: Rows | None = None, given: dict[str, NDArray[Any]] | None = None) -> dict[str, Any]:
        """Starts new trials in these rows.

        Args:
            rows: row numbers (int64), None for all.
            given: the rows' tasks, as returned by `read_task`; None for random ones.

        Returns:
            The info of all rows, with the same names as after a step. Entries about the step itself are 0.
        """
        rows = self._every if rows is None else rows
        self.inner.draw(rows, [self.streams[row] for row in rows])
        if given is not None:
            self.inner.assign(rows, given)
        self.inner.begin(rows)
        self._actions[rows], self._rewards[rows], self._ended[rows], self._episode[rows] = 0.0, 0.0, True, 0
        # Copies, shared by all infos until the next reset and never modified.
        self._tasks = self.inner.tasks
        return self._info(np.zeros(self.count, dtype=np.int64), np.zeros(self.count))

    def _info(self, episode: NDArray[np.int64], reward: NDArray[np.float64]) -> dict[str, Any]:
        return {"task": dict(self._tasks), "inner_episode": episode, "inner_reward": reward}

    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows, (n, size)."""
        (low, high), size = self.observation_limits, self.inner.observation_limits.shape[1]
        observations = np.zeros((self.count, len(low)), dtype=np.float32)
        observations[:, :size] = self.inner.observe()
        if self.inner.actions is None:
            observations[:, size:-2] = self._actions
        else:
            observations[self._every, size + self._actions[:, 0].astype(np.int64)] = 1.0
        observations[:, -2] = np.minimum(np.maximum(self._rewards, low[-2]), high[-2])
        observations[:, -1] = self._ended
        return observations

    def step(self, actions: NDArray[Any]) -> Outcome:
        """One step of every row's inner episode; if it ends, the next one begins.

        After the end of a trial inner episodes go on in the same way; their rewards are 0, and they are not counted.

        Args:
            actions: (n,) int64, or (n, action_size) float32 in [-1, 1].

        Returns:
            The outcome; its info holds "inner_episode" (n,) int64, the number of the step's inner episode,
            "inner_reward" (n,) float64, the reward before the burn-in is applied, and "task", parameters by name.
        """
        finished = self._episode >= self.budget.horizon
        reward, ended = self.inner.step(actions)
        episode = self._episode.copy()
        counted = self.budget.counted(reward, episode + 1)
        if finished.any():
            counted = np.where(finished, 0.0, counted)
        self._actions[:] = actions.reshape(self.count, -1)
        # Copies, because resets modify these arrays, and those returned belong to the caller.
        self._rewards, self._ended = reward.copy(), ended.copy()
        self._episode += ended & ~finished
        if self.watched:
            self.arrived = self.inner.observe()
        if ended.any():
            self.inner.begin(np.flatnonzero(ended))
        terminated = self._episode >= self.budget.horizon
        return Outcome(self.observe(), counted, terminated, self._info(episode, reward.copy()))


def trial_limits(observation: ArrayLike, action: ArrayLike, reward: ArrayLike) -> NDArray[np.float32]:
    """Lowest and highest observation of a trial, from the limits of its parts.

    Args:
        observation: (2, size), limits of inner observations.
        action: (2, size), limits of actions as observed; zeros are observed before the first action.
        reward: (2,), limits of rewards.

    Returns:
        (2, total size) float32, for the inner observation, the previous action, the previous reward, and whether an
        inner episode has just ended.
    """
    low, high = np.asarray(action)
    action_limits = np.stack([np.minimum(low, 0.0), np.maximum(high, 0.0)])
    rest = np.array([reward, (0.0, 1.0)]).T
    return np.concatenate([observation, action_limits, rest], axis=1).astype(np.float32)

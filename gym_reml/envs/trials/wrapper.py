"""A wrapper that makes trials of any Gymnasium environment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.checks import NUMBERS, check_integer, read_number
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.trial import trial_limits
from gym_reml.streams import RowStreams, check_split, row_streams

Task = dict[str, Any]


class Trial(gym.Wrapper[NDArray[np.float32], Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Makes one episode of several inner episodes on one task (RL², Duan et al. 2016, arXiv:1611.02779, section 2.2).

    When a trial begins, a task is drawn and set in the environment for all inner episodes of the trial. When an inner
    episode is terminated or truncated, the next begins at once: the observation is the first of the new episode, the
    previous action and reward are the last of the old one. The trial is `terminated` after `episodes` inner episodes,
    and never truncated. It is reproducible from `reset(seed=...)` if the inner environment is.

    The observation is the flattened inner one, the flattened previous action (one-hot where it is discrete, clipped to
    the action space where it is a box), the previous reward and 1 where an inner episode has just ended. At the start
    of a trial the previous action and reward are 0, and the last number is 1.

    `info` holds the inner environment's info, `task` (the task's numeric parameters by name), `inner_episode` (index of
    the step's inner episode) and `inner_reward` (its reward, also during the burn-in), both 0 after a reset.

    Attributes:
        task: the current task as `draw_task` returned it; None before the first reset.
    """

    task: Task | None = None

    def __init__(
        self,
        env: gym.Env[Any, Any],
        draw_task: Callable[[np.random.Generator], Task],
        set_task: Callable[[gym.Env[Any, Any], Task], None],
        *,
        episodes: int = 2,
        burn_in: int = 0,
        split: str = "train",
    ) -> None:
        """Wraps an environment; a time limit of inner episodes must be inside this wrapper.

        Args:
            env: of the inner episodes; its observation space must flatten into a `Box`.
            draw_task: draws a task from a generator, and returns its parameters by name.
            set_task: sets a task in the environment; called when a trial begins, before the inner reset.
            episodes: number of inner episodes of a trial.
            burn_in: number of first inner episodes without reward.
            split: "train", "validation" or "test"; each has its own random streams.

        Raises:
            ValueError: an invalid number or split, a `draw_task` or `set_task` that cannot be called, or a space that
                does not flatten into a box.
        """
        gym.utils.RecordConstructorArgs.__init__(
            self, draw_task=draw_task, set_task=set_task, episodes=episodes, burn_in=burn_in, split=split
        )
        super().__init__(env)
        for argument, function in (("draw_task", draw_task), ("set_task", set_task)):
            if not callable(function):
                raise ValueError(f"{argument}={function!r}: must be a function")
        self.budget = TrialBudget(episodes, burn_in)
        self.split = check_split(split)
        self._draw_task, self._set_task = draw_task, set_task
        self._streams: RowStreams | None = None
        self._numbers: dict[str, Any] = {}
        self._episode = 0
        supported = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        inner = spaces.flatten_space(env.observation_space)
        if not isinstance(inner, spaces.Box):
            raise ValueError(f"env: its observation space {env.observation_space} does not flatten into a Box")
        if not isinstance(env.action_space, supported):
            choices = ", ".join(kind.__name__ for kind in supported)
            raise ValueError(f"env: its action space {env.action_space} is none of {choices}")
        action = spaces.flatten_space(env.action_space)
        assert isinstance(action, spaces.Box)
        self._action_limits = action.low, action.high
        self._inner_size = inner.shape[0]
        limits = trial_limits((inner.low, inner.high), self._action_limits, (-np.inf, np.inf))
        self.observation_space = spaces.Box(*limits)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draws a new task and starts its first inner episode.

        Args:
            seed: determines all random numbers from now on.
            options: {"task": {...}}, with all parameters that `draw_task` returns, sets the task of the trial; other
                options are passed to the inner environment.

        Raises:
            ValueError: an invalid seed, options that are no dict, a task with other names, or an observation of another
                size than its space.
        """
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"options={options!r}: must be a dict, or None")
        if seed is None and self._streams is None:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            check_integer("seed", seed, least=0)
            self._streams = row_streams(seed, self.split)
        assert self._streams is not None
        inner = dict(options or {})
        given = inner.pop("task", None)
        # Drawn even if a task is given, so that later tasks do not depend on it.
        task = self._draw_task(self._streams.task)
        numbers = _numbers(task)
        if given is not None:
            task = _read_task(given, task)
            numbers = _numbers(task)
        self._set_task(self.env, task)
        self.task, self._numbers, self._episode = task, numbers, 0
        observation, info = self._reset_inner(inner or None)
        no_action = np.zeros(len(self._action_limits[0]))
        if not isinstance(self.action_space, spaces.Box):
            first = np.zeros(self.action_space.shape or (), dtype=np.int64)
            no_action = self._flat_action(first + getattr(self.action_space, "start", 0))
        return self._join(observation, no_action, 0.0, True), self._add_to_info(info, 0, 0.0)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Steps the inner episode, and begins the next one if it ends.

        After the end of the trial, steps have reward 0 until it is reset.

        Raises:
            ResetNeeded: `reset` was not called before.
            ValueError: the inner environment returned a reward that is not a scalar, or an observation of another size.
        """
        if self.task is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        observation, inner_reward, terminated, truncated, info = self.env.step(action)
        reward, ended = read_number("reward", inner_reward), bool(terminated or truncated)
        info = self._add_to_info(info, self._episode, reward)
        over = self._episode >= self.budget.horizon
        counted = 0.0 if over else float(self.budget.counted(np.array(reward), np.array(self._episode + 1)))
        if ended:
            self._episode += 1
            observation, _ = self._reset_inner(None)
        joined = self._join(observation, self._flat_action(action), reward, ended)
        return joined, counted, self._episode >= self.budget.horizon, False, info

    def render(self) -> Any:
        """Renders the inner environment."""
        if self.task is None:
            raise gym.error.ResetNeeded("call reset() before render()")
        return super().render()

    def _add_to_info(self, info: dict[str, Any], episode: int, reward: float) -> dict[str, Any]:
        return {**info, "task": copy.deepcopy(self._numbers), "inner_episode": episode, "inner_reward": reward}

    def _reset_inner(self, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        assert self._streams is not None
        return self.env.reset(seed=int(self._streams.support.integers(2**31)), options=options)

    def _flat_action(self, action: Any) -> NDArray[Any]:
        flat = spaces.flatten(self.action_space, np.asarray(action))
        return np.clip(np.asarray(flat, dtype=np.float64), *self._action_limits)

    def _join(self, observation: Any, action: NDArray[Any], reward: float, ended: bool) -> NDArray[np.float32]:
        inner = np.asarray(spaces.flatten(self.env.observation_space, observation))
        size = self._inner_size
        if inner.shape != (size,):
            raise ValueError(f"observation={observation!r}: has {inner.size} numbers, its space has {size}")
        return np.concatenate([inner, action, [reward, float(ended)]]).astype(np.float32)


def _read_task(given: Any, like: Task) -> Task:
    """A task given by the user; a ValueError unless it has the names of a drawn one."""
    if not isinstance(given, Mapping) or set(given) != set(like):
        raise ValueError(f"options: task={given!r}: must be a dict of {', '.join(map(repr, like)) or 'nothing'}")
    return dict(given)


def _numbers(task: Any) -> dict[str, Any]:
    """The numeric parameters of a task by name, for infos."""
    if not isinstance(task, Mapping):
        raise ValueError(f"draw_task: returned {task!r}, must return a dict of parameters by name")
    numbers: dict[str, Any] = {}
    for name, value in task.items():
        if isinstance(value, Mapping):
            numbers[name] = _numbers(value)
            continue
        try:
            array = np.array(value)
        except (TypeError, ValueError):  # such as lists of unequal lengths
            continue
        if array.dtype.kind in NUMBERS:
            numbers[name] = array if array.ndim else array.item()
    return numbers

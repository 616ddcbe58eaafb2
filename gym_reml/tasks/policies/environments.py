"""Batches of copies of a Gymnasium environment, for rollouts without automatic resets."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import read_number
from gym_reml.tasks.policies.distributions import Categorical, Distribution, Gaussian

if TYPE_CHECKING:
    from gymnasium.vector import SyncVectorEnv


class Absorbing(gym.Wrapper):
    """Makes the end of an episode an absorbing state: the last observation is repeated, with reward 0.

    The end is never reported, so that vector environments of no version reset the environment.

    Attributes:
        over: whether the episode has ended.
    """

    over = False
    _last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        self._last, _ = self.env.reset(seed=seed, options=options)
        self.over = False
        return self._last, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, or none after the end. Infos are dropped, as joining them may take longer than a step."""
        if self.over:
            return self._last, 0.0, False, False, {}
        self._last, reward, terminated, truncated, _ = self.env.step(action)
        self.over = bool(terminated or truncated)
        # Nearly always a float; `read_number` may take longer than a step.
        reward = reward if isinstance(reward, float) else read_number("reward", reward)
        return self._last, reward, False, False, {}


class Environments:
    """Copies of an environment, created on demand and reused by later rollouts.

    Pickles and copies of this object contain none: environments need not be picklable and are not shared.

    Attributes:
        make: creates an environment.
    """

    def __init__(self, make: Callable[[], gym.Env]) -> None:
        """Creates no environment yet."""
        self.make = make
        self._wrapped: list[Absorbing] = []
        self._vectors: dict[int, SyncVectorEnv] = {}

    def __reduce__(self) -> tuple[type[Environments], tuple[Callable[[], gym.Env]]]:
        return Environments, (self.make,)

    @property
    def first(self) -> gym.Env:
        """The first environment, as returned by `make`."""
        self._grow(1)
        return self._wrapped[0].env

    def side_by_side(self, count: int) -> tuple[SyncVectorEnv, list[Absorbing]]:
        """The first `count` environments, as a vector environment and as a list."""
        # Imported here, as vector environments differ between versions and are not needed for single environments.
        from gymnasium.vector import SyncVectorEnv

        self._grow(count)
        wrapped = self._wrapped[:count]
        if count not in self._vectors:
            self._vectors[count] = SyncVectorEnv([partial(_identity, env) for env in wrapped], copy=False)
        return self._vectors[count], wrapped

    def _grow(self, count: int) -> None:
        while len(self._wrapped) < count:
            env = self.make()
            if not isinstance(env, gym.Env):
                raise ValueError(f"make: returned {env!r}, must return a gymnasium.Env")
            if self._wrapped and env.unwrapped is self._wrapped[0].unwrapped:
                raise ValueError(f"make: returned {env!r} twice, must return a new environment at every call")
            self._wrapped.append(Absorbing(env))


def observation_size(space: spaces.Space) -> int:
    """Length of a flattened observation.

    Raises:
        ValueError: a space other than a `Box`.
    """
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"make: observations are {space}, must be a Box; gymnasium.wrappers.FlattenObservation converts others"
        )
    return math.prod(space.shape)


def action_distribution(space: spaces.Space) -> Distribution:
    """Distribution of a policy's actions: Gaussian for a `Box`, categorical for a `Discrete`.

    Raises:
        ValueError: another space, or a Box of integers or without bounds.
    """
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and space.is_bounded():
        return Gaussian(math.prod(space.shape))
    raise ValueError(f"make: actions are {space}, must be a Discrete or a bounded Box of floats")


def executable(space: spaces.Space, actions: Tensor) -> NDArray[Any]:
    """Converts actions of policies to those of a vector environment.

    Args:
        space: action space of a single environment.
        actions: (n, size) float32, one-hot for a `Discrete`. For a `Box`, [-1, 1] is mapped to its bounds; values
            outside are clipped, NaN becomes the middle.

    Returns:
        (n, ...) in the space's shape and dtype.
    """
    if isinstance(space, spaces.Discrete):
        return actions.argmax(dim=1).numpy() + space.start
    assert isinstance(space, spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    unit = actions.nan_to_num(0.0).double().numpy().reshape(-1, *space.shape)
    return np.clip(low + (unit + 1.0) / 2.0 * (high - low), low, high).astype(space.dtype)


def _identity(env: gym.Env) -> gym.Env:
    return env

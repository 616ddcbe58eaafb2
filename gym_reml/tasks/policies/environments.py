"""Many copies of one Gymnasium environment side by side, for rollouts that nobody resets half-way."""

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
    """After its end an environment stays where it is and pays nothing; its neighbours go on.

    It never reports its end, so no vector environment, of whatever version, resets it.

    Attributes:
        over: whether the episode has ended.
    """

    over = False
    _last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self._last, _ = self.env.reset(seed=seed, options=options)
        self.over = False
        return self._last, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, or none after the end. Infos are dropped: joining them takes longer than many a step."""
        if self.over:
            return self._last, 0.0, False, False, {}
        self._last, reward, terminated, truncated, _ = self.env.step(action)
        self.over = bool(terminated or truncated)
        # Nearly always one already: reading it takes longer than many a step.
        reward = reward if isinstance(reward, float) else read_number("reward", reward)
        return self._last, reward, False, False, {}


class Environments:
    """Copies of one environment, made when they are needed and kept for the next rollout.

    A pickle or a copy of this object starts with none: environments need not be picklable, and are never shared.

    Attributes:
        make: makes one environment.
    """

    def __init__(self, make: Callable[[], gym.Env]) -> None:
        """Makes no environment yet.

        Args:
            make: as above.
        """
        self.make = make
        self._made: list[Absorbing] = []
        self._vectors: dict[int, SyncVectorEnv] = {}

    def __reduce__(self) -> tuple[type[Environments], tuple[Callable[[], gym.Env]]]:
        return Environments, (self.make,)

    @property
    def first(self) -> gym.Env:
        """One of them, as it was made."""
        self._grow(1)
        return self._made[0].env

    def side_by_side(self, count: int) -> tuple[SyncVectorEnv, list[Absorbing]]:
        """The first `count` of them, as one vector environment and one by one."""
        # Only here: older versions' vector environments differ, and single environments do without.
        from gymnasium.vector import SyncVectorEnv

        self._grow(count)
        made = self._made[:count]
        if count not in self._vectors:
            self._vectors[count] = SyncVectorEnv([partial(_given, env) for env in made], copy=False)
        return self._vectors[count], made

    def _grow(self, count: int) -> None:
        while len(self._made) < count:
            env = self.make()
            if not isinstance(env, gym.Env):
                raise ValueError(f"make: gave {env!r}, must give a gymnasium.Env")
            if self._made and env.unwrapped is self._made[0].unwrapped:
                raise ValueError(f"make: gave {env!r} twice, must make a new environment at every call")
            self._made.append(Absorbing(env))


def observation_size(space: spaces.Space) -> int:
    """Numbers of an observation.

    Raises:
        ValueError: a space that is no `Box`.
    """
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"make: observations are {space}, must be a Box; gymnasium.wrappers.FlattenObservation makes one of others"
        )
    return math.prod(space.shape)


def action_distribution(space: spaces.Space) -> Distribution:
    """What policies draw their actions from: Gaussian for a `Box`, categorical for a `Discrete`.

    Raises:
        ValueError: a space that is neither, or a Box of integers or without bounds.
    """
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and space.is_bounded():
        return Gaussian(math.prod(space.shape))
    raise ValueError(f"make: actions are {space}, must be a Discrete or a bounded Box of floats")


def executable(space: spaces.Space, actions: Tensor) -> NDArray[Any]:
    """Policies' actions as a vector environment takes them.

    Args:
        space: of one environment's actions.
        actions: (n, size) float32, for a Box in units in which [-1, 1] spans it, else one-hot. What lies outside is
            clipped, what is not a number becomes the middle.

    Returns:
        (n, ...) in the space's shape and type.
    """
    if isinstance(space, spaces.Discrete):
        return actions.argmax(dim=1).numpy() + space.start
    assert isinstance(space, spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    unit = actions.nan_to_num(0.0).double().numpy().reshape(-1, *space.shape)
    return np.clip(low + (unit + 1.0) / 2.0 * (high - low), low, high).astype(space.dtype)


def _given(env: gym.Env) -> gym.Env:
    return env

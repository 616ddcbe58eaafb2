"""Stable-Baselines3's `VecEnv` over the native vector environment, and where to import the hybrid policies from.

`HybridPolicy` (`gym_reml.sb3_hybrid`) is for PPO, A2C and TRPO, `RecurrentHybridPolicy` (`gym_reml.sb3_recurrent`) for
RecurrentPPO. The latter needs sb3-contrib, which is loaded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

import gym_reml
from gym_reml.envs.rows import RowsVectorEnv
from gym_reml.sb3_hybrid import HybridPolicy as HybridPolicy

if TYPE_CHECKING:
    from gym_reml.sb3_recurrent import RecurrentHybridPolicy as RecurrentHybridPolicy


class RowsVecEnv(VecEnv):
    """The native vector environment as SB3 wants it: same-step resets, infos as dicts, the last observation in them.

    Attributes:
        env: the native vector environment.
    """

    def __init__(self, env: RowsVectorEnv) -> None:
        """Wraps an environment made with `autoreset_mode="SameStep"`.

        Raises:
            ValueError: another autoreset mode, or an action space that SB3 does not know.
        """
        if env.autoreset_mode.value != "SameStep":
            raise ValueError(f"env: autoreset_mode={env.autoreset_mode.value!r}, must be 'SameStep'")
        if isinstance(env.single_action_space, gym.spaces.Dict):
            raise ValueError(
                "action='hybrid': SB3 has no policies for Dict actions; use 'box', 'multidiscrete' or 'discrete'"
            )
        self.env = env
        self._actions: Any = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Resets all rows, with the seeds of `seed()` if it was called since the last time."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observation, info = self.env.reset(seed=seeds, options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _rows(info, self.num_envs)
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions; `step_wait` does the work."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all rows; ended ones start anew, their last observation is in `info["terminal_observation"]`."""
        observation, reward, terminated, _, info = self.env.step(self._actions)
        infos = _rows(info, self.num_envs)
        if terminated.any():
            finals = _rows(info["final_info"], self.num_envs)
            for row in np.flatnonzero(terminated).tolist():
                self.reset_infos[row] = infos[row]
                infos[row] = finals[row] | {
                    "terminal_observation": info["final_obs"][row],
                    "TimeLimit.truncated": False,
                }
        return observation, reward.astype(np.float32), terminated, infos

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Every row's frame."""
        return self.env.render() or [None] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        """Whether the environment has an attribute of that name."""
        return hasattr(self.env, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, which all rows share, once for each row."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute, which all rows share.

        Raises:
            ValueError: if asked to set it in some rows only.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices!r}: all rows share their attributes; leave indices out")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Calls a method of the vector environment once; an array or list over the rows is dealt out to them."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        shared = not isinstance(result, np.ndarray | list | tuple) or len(result) != self.num_envs
        return [result if shared else result[row] for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Rows are not wrapped one by one."""
        return [False for _ in self._get_indices(indices)]


def make_vec_env(env_id: str = "NetBuild-v0", n_envs: int = 1, seed: int | None = None, **arguments: Any) -> VecMonitor:
    """`n_envs` environments, computed together, for any SB3 algorithm.

    Args:
        env_id: a registered id of this package.
        n_envs: how many run side by side.
        seed: row i is seeded with seed + i at the first reset.
        **arguments: those of the environment.

    Returns:
        A monitored `VecEnv` (episode returns and lengths are in `info["episode"]`).

    Raises:
        ValueError: an id that is not one of this package's, or an argument that makes no sense.
    """
    known = [*gym_reml.ENVIRONMENTS, *gym_reml.TRIALS]
    if env_id.removeprefix("gym_reml:") not in known:
        raise ValueError(f"env_id={env_id!r}: must be one of {', '.join(map(repr, known))}")
    env = gym.make_vec(env_id, num_envs=n_envs, autoreset_mode="SameStep", **arguments).unwrapped
    assert isinstance(env, RowsVectorEnv)
    vec_env = RowsVecEnv(env)
    if seed is not None:
        vec_env.seed(seed)
    return VecMonitor(vec_env)


if not TYPE_CHECKING:  # to a type checker, a module with this function has attributes of any name

    def __getattr__(name: str) -> Any:
        if name != "RecurrentHybridPolicy":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from gym_reml.sb3_recurrent import RecurrentHybridPolicy
        except ImportError as error:
            raise ImportError("RecurrentHybridPolicy needs sb3-contrib: pip install sb3-contrib") from error
        return RecurrentHybridPolicy


def _rows(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A vector info as a list of the rows' own infos, each with what its masks say is there."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in info.items():
        if name.startswith(("_", "final_")):
            continue
        column = _rows(values, count) if isinstance(values, dict) else values.tolist()
        for row, value, present in zip(rows, column, info[f"_{name}"].tolist(), strict=True):
            if present:
                row[name] = value
    return rows

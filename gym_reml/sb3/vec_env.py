"""Stable-Baselines3's `VecEnv` over the native vector environment."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from gym_reml.checks import check_integer
from gym_reml.envs.common.rows import attribute_of_row, call_for_rows, infos_of_rows, make_rows, set_attribute
from gym_reml.envs.common.vector import ProcessVectorEnv


class NativeVecEnv(VecEnv):
    """SB3's `VecEnv` over a native vector environment.

    Rows that end are reset in the same step; infos are a list of dicts, with the last observation of the episode.

    Attributes:
        env: the native vector environment.
    """

    def __init__(self, env: ProcessVectorEnv) -> None:
        """Wraps an environment made with `autoreset_mode="SameStep"`.

        Raises:
            ValueError: another autoreset mode or output, or an action space that SB3 does not support.
        """
        if env.autoreset_mode.value != "SameStep":
            raise ValueError(f"env: autoreset_mode={env.autoreset_mode.value!r}, must be 'SameStep'")
        if env.output != "numpy":
            raise ValueError(f"env: output={env.output!r}, must be 'numpy', which SB3's buffers hold")
        if isinstance(env.single_action_space, gym.spaces.Dict):
            raise ValueError(
                "action='hybrid': SB3 has no policies for Dict actions; use 'box', 'multidiscrete' or 'discrete'"
            )
        self.env = env
        self._actions: Any = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Resets all rows, with the seeds and options set since the last reset."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observation, info = self.env.reset(seed=seeds, options=_vector_options(self._options))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = infos_of_rows(self.env, info)
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Stores the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all rows; those that end are reset, and `info["terminal_observation"]` is their last observation."""
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        infos = infos_of_rows(self.env, info)
        done = terminated | truncated
        if done.any():
            finals = infos_of_rows(self.env, info["final_info"])
            for row in np.flatnonzero(done).tolist():
                self.reset_infos[row] = infos[row]
                infos[row] = finals[row] | {"terminal_observation": info["final_obs"][row]}
        for row, only_truncated in enumerate((truncated & ~terminated).tolist()):
            infos[row]["TimeLimit.truncated"] = only_truncated
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Every row's image; warns and returns None for each if the render mode is not "rgb_array"."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"render_mode={self.render_mode!r}: only 'rgb_array' gives images", stacklevel=2)
            return [None] * self.num_envs
        return list(self.env.render() or ())

    def has_attr(self, attr_name: str) -> bool:
        """Whether `get_attr` finds this attribute."""
        try:
            self.get_attr(attr_name)
        except AttributeError:
            return False
        return True

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute as a single environment would have it, for each row; rows may share one object.

        Raises:
            AttributeError: there is no such attribute, or only the vector environment as a whole has it.
        """
        return [attribute_of_row(self.env, attr_name, row) for row in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute, which all rows share.

        Raises:
            ValueError: indices of some rows only, or an attribute that cannot be set.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices!r}: all rows share their attributes; leave indices out")
        set_attribute(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Calls a method that is marked by `gym_reml.envs.common.view.for_rows`, for each row.

        Raises:
            AttributeError: there is no such method.
            ValueError: the method is not marked: it acts on all rows at once.
        """
        # SB3 reads attributes of wrapped environments by this method.
        if method_name == "get_wrapper_attr":
            return self.get_attr(args[0], indices)
        return call_for_rows(self.env, method_name, list(self._get_indices(indices)), *args, **kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False for each row, since rows have no wrappers of their own."""
        return [False for _ in self._get_indices(indices)]


def make_vec_env(
    env_id: str | EnvSpec = "NetBuild-v0", n_envs: int = 1, *, seed: int | None = None, **arguments: Any
) -> VecMonitor:
    """A native vector environment as a `VecEnv` for any SB3 algorithm.

    Args:
        env_id: a registered id, or an `EnvSpec`, whose vector entry point is a `ProcessVectorEnv`.
        n_envs: number of parallel environments.
        seed: row i is seeded with seed + i at the first reset.
        **arguments: of the environment. `render_mode="rgb_array"`, which SB3's own `make_vec_env` sets, is needed by
            `VecVideoRecorder`; episodes are recorded then, which takes 15 to 25 % of the speed at 64 rows.

    Returns:
        A `VecMonitor`, so episode returns and lengths are in `info["episode"]`.

    Raises:
        ValueError: an id without such a vector entry point, or an invalid argument.
        TypeError: a function instead of an id, or an unknown argument.
    """
    check_integer("n_envs", n_envs)
    if seed is not None:
        check_integer("seed", seed, least=0)
    instead = "For any other id, or a function, use stable_baselines3.common.env_util.make_vec_env"
    env = make_rows(env_id, n_envs, instead=instead, arguments=arguments)
    vec_env = NativeVecEnv(env)
    if seed is not None:
        vec_env.seed(seed)
    return VecMonitor(vec_env)


def _vector_options(options: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The rows' options of `reset` as those of the vector environment: either all the same, or one task for each.

    Raises:
        ValueError: different options for some rows, other than one task for each.
    """
    first = options[0]
    if all(row_options is first for row_options in options) or not any(options):
        return first or None
    tasks: list[Any] = [row_options.get("task") if set(row_options) == {"task"} else None for row_options in options]
    if not all(isinstance(task, dict) and set(task) == set(tasks[0]) for task in tasks):
        raise ValueError(f"options={options!r}: rows may differ only in 'task', and then every row needs one")
    return {"task": {name: np.stack([task[name] for task in tasks]) for name in tasks[0]}}

"""Stable-Baselines3's `VecEnv` over the native vector environment."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

import gym_reml
from gym_reml.checks import check_integer
from gym_reml.envs.common.vector import ProcessVectorEnv, make_native

VECTOR_ARGUMENTS = ("num_envs", "autoreset_mode", "vectorization_mode")
"""Arguments that only vector environments have."""

FIXED = ("action_space", "observation_space", "metadata", "spec", "render_mode")
"""Attributes that cannot be set."""

NOT_OF_ROWS = (
    *("num_envs", "single_action_space", "single_observation_space", "autoreset_mode"),
    *("closed", "unwrapped", "np_random", "np_random_seed"),
)
"""Attributes of the vector environment as a whole, which no row has."""


class NativeVecEnv(VecEnv):
    """SB3's `VecEnv` over a native vector environment.

    Rows that end are reset in the same step; infos are a list of dicts, with the last observation of the episode.

    Attributes:
        env: the native vector environment.
    """

    def __init__(self, env: ProcessVectorEnv) -> None:
        """Wraps an environment made with `autoreset_mode="SameStep"`.

        Raises:
            ValueError: another autoreset mode, or an action space that SB3 does not support.
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
        """Resets all rows, with the seeds and options set since the last reset."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observation, info = self.env.reset(seed=seeds, options=_vector_options(self._options))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = self._rows(info)
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Stores the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all rows; those that end are reset, and `info["terminal_observation"]` is their last observation."""
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        infos = self._rows(info)
        done = terminated | truncated
        if done.any():
            finals = self._rows(info["final_info"])
            for row in np.flatnonzero(done).tolist():
                self.reset_infos[row] = infos[row]
                infos[row] = finals[row] | {"terminal_observation": info["final_obs"][row]}
        for row, only_truncated in enumerate((truncated & ~terminated).tolist()):
            infos[row]["TimeLimit.truncated"] = only_truncated
        return observation, reward.astype(np.float32), done, infos

    def _rows(self, info: dict[str, Any]) -> list[dict[str, Any]]:
        return [self.env._format_info(row) for row in _rows(info, self.num_envs)]

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
        return [self._attribute(attr_name, row) for row in self._get_indices(indices)]

    def _attribute(self, name: str, row: int) -> Any:
        env = self.env
        if name in ("action_space", "observation_space"):
            return getattr(env, f"single_{name}")
        if name == "metadata":
            return {key: value for key, value in env.metadata.items() if key != "autoreset_mode"}
        if name == "spec":
            return _single_spec(env.spec)
        if name in NOT_OF_ROWS or name.startswith("_"):
            raise AttributeError(f"{name!r}: belongs to the vector environment, not to its rows; see `env.{name}`")
        value = getattr(env, name)
        return partial(self._call_one, name, row) if inspect.ismethod(value) else value

    def _call_one(self, name: str, row: int, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, [row], *args, **kwargs)[0]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute, which all rows share.

        Raises:
            ValueError: indices of some rows only, or an attribute that cannot be set.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices!r}: all rows share their attributes; leave indices out")
        if attr_name in FIXED or attr_name in NOT_OF_ROWS or inspect.ismethod(getattr(self.env, attr_name, None)):
            raise ValueError(f"attr_name={attr_name!r}: cannot be set")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Calls a method that is marked by `gym_reml.envs.common.view.for_rows`, for each row.

        Raises:
            AttributeError: there is no such method.
            ValueError: the method is not marked: it acts on all rows at once.
        """
        # SB3 reads attributes of wrapped environments by this method.
        if method_name == "get_wrapper_attr":
            return self.get_attr(args[0], indices)
        return self._call(method_name, list(self._get_indices(indices)), *args, **kwargs)

    def _call(self, name: str, rows: Sequence[int], *args: Any, **kwargs: Any) -> list[Any]:
        method = getattr(self.env, name)
        takes_row = getattr(method, "takes_row", None)
        if takes_row is None:
            choices = [
                repr(other) for other in dir(type(self.env)) if hasattr(getattr(type(self.env), other), "takes_row")
            ]
            raise ValueError(
                f"method_name={name!r}: cannot be called for single rows, which are computed together; "
                f"choices: {', '.join(choices)}"
            )
        if takes_row:
            return [method(*args, row=row, **kwargs) for row in rows]
        results = method(*args, **kwargs)
        return [None if results is None else results[row] for row in rows]

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
        **arguments: of the environment.

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
    known = gym_reml.REGISTRATIONS
    vec_env = NativeVecEnv(
        make_native(env_id, n_envs, kind=ProcessVectorEnv, known=known, instead=instead, arguments=arguments)
    )
    if seed is not None:
        vec_env.seed(seed)
    return VecMonitor(vec_env)


def _rows(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A vector info as a list of infos, one for each row, with the entries that its masks mark as present."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in info.items():
        if name.startswith("_") or name in ("final_obs", "final_info"):
            continue
        if isinstance(values, dict):
            column: Any = _rows(values, count)
        else:
            column = values.tolist() if values.ndim == 1 else values
        for row, value, present in zip(rows, column, info[f"_{name}"].tolist(), strict=True):
            if present:
                row[name] = value
    return rows


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


def _single_spec(spec: EnvSpec | None) -> EnvSpec | None:
    """The `EnvSpec` of a single environment equal to each row."""
    if spec is None:
        return None
    kwargs = {name: value for name, value in spec.kwargs.items() if name not in VECTOR_ARGUMENTS}
    # gym.make applies the limit by a wrapper.
    limit = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return dataclasses.replace(spec, kwargs=kwargs, max_episode_steps=limit)

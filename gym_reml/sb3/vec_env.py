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
"""Arguments of vector environments that single ones do not have."""

FIXED = ("action_space", "observation_space", "metadata", "spec", "render_mode")
"""Attributes that are not to be set."""

TOGETHER = (
    *("num_envs", "single_action_space", "single_observation_space", "autoreset_mode"),
    *("closed", "unwrapped", "np_random", "np_random_seed"),
)
"""Attributes of the vector environment that are no row's."""


class NativeVecEnv(VecEnv):
    """The native vector environment as SB3 wants it: same-step resets, infos as dicts, the last observation in them.

    Attributes:
        env: the native vector environment.
    """

    def __init__(self, env: ProcessVectorEnv) -> None:
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
        observation, info = self.env.reset(seed=seeds, options=_joined(self._options))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = self._rows(info)
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions; `step_wait` does the work."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all rows; ended ones start anew, their last observation is in `info["terminal_observation"]`."""
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        infos = self._rows(info)
        done = terminated | truncated
        if done.any():
            finals = self._rows(info["final_info"])
            for row in np.flatnonzero(done).tolist():
                self.reset_infos[row] = infos[row]
                infos[row] = finals[row] | {"terminal_observation": info["final_obs"][row]}
        for row, cut in enumerate((truncated & ~terminated).tolist()):
            infos[row]["TimeLimit.truncated"] = cut
        return observation, reward.astype(np.float32), done, infos

    def _rows(self, info: dict[str, Any]) -> list[dict[str, Any]]:
        return [self.env._format_info(row) for row in _rows(info, self.num_envs)]

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Every row's picture; None, and a warning, where the render mode is another than "rgb_array"."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"render_mode={self.render_mode!r}: only 'rgb_array' gives images", stacklevel=2)
            return [None] * self.num_envs
        return list(self.env.render() or ())

    def has_attr(self, attr_name: str) -> bool:
        """Whether `get_attr` has an answer."""
        try:
            self.get_attr(attr_name)
        except AttributeError:
            return False
        return True

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """What the single environment's attribute would be, once for each row: its own, or one that all rows share.

        Raises:
            AttributeError: there is none, or the rows have it together only.
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
        if name in TOGETHER or name.startswith("_"):
            raise AttributeError(f"{name!r}: is the vector environment's, no row has one of its own; see `env.{name}`")
        value = getattr(env, name)
        return partial(self._call_one, name, row) if inspect.ismethod(value) else value

    def _call_one(self, name: str, row: int, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, [row], *args, **kwargs)[0]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute, which all rows share.

        Raises:
            ValueError: if asked to set it in some rows only, or to set what is not to be set.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices!r}: all rows share their attributes; leave indices out")
        if attr_name in FIXED or attr_name in TOGETHER or inspect.ismethod(getattr(self.env, attr_name, None)):
            raise ValueError(f"attr_name={attr_name!r}: cannot be set")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Calls a method that says what it gives each row (see `gym_reml.envs.common.view.for_rows`).

        Raises:
            AttributeError: there is no such method.
            ValueError: it says nothing of rows: what it does, it does to all of them at once.
        """
        # What wrapped environments are asked in this way.
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
        """Rows are not wrapped one by one."""
        return [False for _ in self._get_indices(indices)]


def make_vec_env(
    env_id: str | EnvSpec = "NetBuild-v0", n_envs: int = 1, *, seed: int | None = None, **arguments: Any
) -> VecMonitor:
    """`n_envs` environments, computed together, for any SB3 algorithm.

    Args:
        env_id: an id of this package, or one of your own whose vector entry point is a `ProcessVectorEnv`; an
            `EnvSpec` of such an id.
        n_envs: how many run side by side.
        seed: row i is seeded with seed + i at the first reset.
        **arguments: those of the environment.

    Returns:
        A monitored `VecEnv` (episode returns and lengths are in `info["episode"]`).

    Raises:
        ValueError: an id that has no such vector entry point, or an argument that makes no sense.
        TypeError: a function instead of an id, or an argument that does not exist.
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
    """A vector info as a list of the rows' own infos, each with what its masks say is there."""
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


def _joined(options: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The rows' options of `reset` as the vector environment's: each may have a task of its own, the rest is shared.

    Raises:
        ValueError: rows that want other things than a task, and not the same.
    """
    first = options[0]
    if all(one is first for one in options) or not any(options):
        return first or None
    tasks: list[Any] = [one.get("task") if set(one) == {"task"} else None for one in options]
    if not all(isinstance(task, dict) and set(task) == set(tasks[0]) for task in tasks):
        raise ValueError(f"options={options!r}: rows share a pool; of their own they may have a 'task', all or none")
    return {"task": {name: np.stack([task[name] for task in tasks]) for name in tasks[0]}}


def _single_spec(spec: EnvSpec | None) -> EnvSpec | None:
    """The specification of a single environment like each row of this vector environment."""
    if spec is None:
        return None
    kwargs = {name: value for name, value in spec.kwargs.items() if name not in VECTOR_ARGUMENTS}
    # gym.make has it in a wrapper of its own.
    limit = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return dataclasses.replace(spec, kwargs=kwargs, max_episode_steps=limit)

"""Tianshou's `BaseVectorEnv` over the native vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from tianshou.env import BaseVectorEnv

from gym_reml.checks import check_integer
from gym_reml.envs.common.rows import attribute_of_row, call_for_rows, infos_of_rows, make_rows, set_attribute
from gym_reml.envs.common.vector import ProcessVectorEnv
from gym_reml.envs.common.versions import AutoresetMode

Rows = int | Sequence[int] | NDArray[np.integer] | None


class NativeVectorEnv(BaseVectorEnv):
    """Tianshou's vector environment over a native one: collectors step all rows in one batch.

    As Tianshou's own, it resets no row by itself. A step of some rows ends the episodes of the others: they must be
    reset before they are stepped, as collectors do.

    Attributes:
        env: the native vector environment.
    """

    def __init__(self, env: ProcessVectorEnv) -> None:
        """Wraps an environment made with `autoreset_mode="Disabled"`.

        Raises:
            ValueError: another autoreset mode or output, or an action space that Tianshou does not support.
        """
        if env.autoreset_mode != AutoresetMode.DISABLED:
            raise ValueError(f"env: autoreset_mode={env.autoreset_mode.value!r}, must be 'Disabled'")
        if env.output != "numpy":
            raise ValueError(f"env: output={env.output!r}, must be 'numpy', which Tianshou's batches hold")
        if isinstance(env.single_action_space, gym.spaces.Dict):
            raise ValueError(
                "action='hybrid': Tianshou has no policies for Dict actions; use 'box', 'multidiscrete' or 'discrete'"
            )
        self.env = env
        # Those of BaseVectorEnv, whose constructor wants a worker for each row.
        self.env_num = self.wait_num = env.num_envs
        self.timeout, self.is_async, self.is_closed = None, False, False
        self.waiting_conn: list[Any] = []
        self.waiting_id: list[int] = []
        self.ready_id = list(range(env.num_envs))
        self._left_out = np.zeros(env.num_envs, dtype=np.bool_)
        self._last_actions = np.zeros(env.action_space.shape or (), dtype=env.action_space.dtype)

    def get_env_attr(self, key: str, id: Rows = None) -> list[Any]:
        """The attribute as a single environment would have it, for each row; rows may share one object."""
        return [attribute_of_row(self.env, key, int(row)) for row in self._wrap_id(id)]

    def set_env_attr(self, key: str, value: Any, id: Rows = None) -> None:
        """Sets the attribute, which all rows share.

        Raises:
            ValueError: some rows only, or an attribute that cannot be set.
        """
        if len(self._wrap_id(id)) != self.env_num:
            raise ValueError(f"id={id!r}: all rows share their attributes; leave id out")
        set_attribute(self.env, key, value)

    def reset(
        self, env_id: Rows = None, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.object_]]:
        """Resets some rows, by default all; returns their observations and infos.

        Args:
            env_id: the rows.
            seed: of each of these rows.
            options: of `reset`.
        """
        return self._reset(env_id, [seed] * self.env_num, options)

    def _reset(
        self, env_id: Rows, seeds: Sequence[int | None], options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.object_]]:
        self._assert_is_not_closed()
        rows = np.asarray(self._wrap_id(env_id))
        mask = np.zeros(self.env_num, dtype=np.bool_)
        mask[rows] = True
        observation, info = self.env.reset(seed=seeds, options={**(options or {}), "reset_mask": mask})
        self._left_out &= ~mask
        return self._observations(observation, rows), self._infos(info)[rows]

    def step(
        self, action: Any, id: Rows = None
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.object_]]:
        """Steps some rows, by default all; `info["env_id"]` is the row.

        Raises:
            ValueError: rows that were left out of a step since they were reset, another number of actions, or some rows
                only of episodes of one step that a pool learns from.
        """
        self._assert_is_not_closed()
        rows = np.asarray(self._wrap_id(id))
        if self._left_out[rows].any():
            wrong = rows[self._left_out[rows]].tolist()
            raise ValueError(f"id: rows {wrong} were left out of steps since they were reset; reset them first")
        if len(action) != len(rows):
            raise ValueError(f"action: {len(action)} actions given for {len(rows)} rows")
        if len(rows) < self.env_num and self._learns_from_single_steps():
            raise ValueError(
                f"id: only {len(rows)} of {self.env_num} rows given, but with learn= and horizon=1 the pool learns "
                "from every step of every row; collect steps instead of episodes, or take a longer horizon"
            )
        self._last_actions[rows] = action
        if len(rows) < self.env_num:
            self._left_out[np.setdiff1d(self.ready_id, rows)] = True
        if self._left_out.any():
            # All rows step together. Those left out begin anew before each step, so that no episode of theirs ends:
            # with `learn`, the pool would learn from it.
            self.env.reset(options={"reset_mask": self._left_out})
        observation, reward, terminated, truncated, info = self.env.step(self._last_actions)
        infos = self._infos(info)
        for row, row_info in enumerate(infos):
            row_info["env_id"] = row
        observations = self._observations(observation, rows)
        return observations, reward[rows], terminated[rows], truncated[rows], infos[rows]

    def seed(self, seed: int | list[int] | None = None) -> list[list[int] | None]:
        """Resets all rows with seeds: s + i for row i, or as listed; returns a list of one seed for each row."""
        seeds: list[Any] = [None] * self.env_num if seed is None or isinstance(seed, int) else list(seed)
        if isinstance(seed, int):
            seeds = [seed + row for row in self.ready_id]
        self._reset(None, seeds)
        return [[row_seed] for row_seed in seeds]

    def render(self, **kwargs: Any) -> list[Any]:
        """Every row's frame, or None without a render mode."""
        self._assert_is_not_closed()
        return call_for_rows(self.env, "render", self.ready_id)

    def close(self) -> None:
        """Closes the environment."""
        self._assert_is_not_closed()
        self.env.close()
        self.is_closed = True

    def _learns_from_single_steps(self) -> bool:
        process: Any = getattr(self.env, "mdp", None)
        return getattr(process, "learner", None) is not None and process.objective.horizon == 1

    def _infos(self, info: dict[str, Any]) -> NDArray[np.object_]:
        infos = np.empty(self.env_num, dtype=object)
        infos[:] = infos_of_rows(self.env, info)
        return infos

    def _observations(self, observation: Any, rows: NDArray[np.integer]) -> NDArray[Any]:
        """Those of some rows: an array, or where they have parts, an array of dicts."""
        if not isinstance(observation, dict):
            return observation[rows]
        parts = np.empty(len(rows), dtype=object)
        parts[:] = [{name: part[row] for name, part in observation.items()} for row in rows]
        return parts


def make_vec_env(env_id: str | EnvSpec = "NetBuild-v0", num_envs: int = 1, **arguments: Any) -> NativeVectorEnv:
    """A native vector environment for Tianshou's collectors.

    `env.seed(s)` seeds row i with s + i.

    Args:
        env_id: a registered id, or an `EnvSpec`, whose vector entry point is a `ProcessVectorEnv`.
        num_envs: number of parallel environments.
        **arguments: of the environment.

    Raises:
        ValueError: an id without such a vector entry point, or an invalid argument.
        TypeError: a function instead of an id, or an unknown argument.
    """
    check_integer("num_envs", num_envs)
    instead = "For any other id, use tianshou.env.DummyVectorEnv"
    env = make_rows(env_id, num_envs, instead=instead, arguments=arguments, mode=AutoresetMode.DISABLED)
    return NativeVectorEnv(env)

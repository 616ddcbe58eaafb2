"""A Gymnasium `VectorEnv` over a process of n rows, which are computed as one batch."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import check_integer, is_integer
from gym_reml.envs.common.arguments import RENDER_MODES, check_output, check_render_mode, frame_mode
from gym_reml.envs.common.infos import merged, with_masks
from gym_reml.envs.common.versions import AutoresetMode, VectorEnv
from gym_reml.envs.common.view import ProcessView, for_rows
from gym_reml.mdp.process import Process
from gym_reml.networks.torch_state import own_state
from gym_reml.spaces.base import on_host
from gym_reml.streams import row_streams


class ProcessVectorEnv(ProcessView, VectorEnv[Any, Any, Any]):
    """n parallel environments; reset with seed s it equals n single ones reset with seeds s, s + 1, ...

    Actions may be arrays, or tensors on any device.

    With `output="torch"`, what `reset` and `step` return are tensors on `device`: observations and rewards float32,
    terminations and truncations bool. Infos stay arrays, except that `final_obs` is one tensor (n, ...), or a dict of
    such, where `_final_obs` says which rows have ended.

    Attributes:
        output: "numpy" or "torch".
    """

    metadata: dict[str, Any] = {
        "render_modes": list(RENDER_MODES),
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        process: Process,
        action_space: gym.Space[Any],
        *,
        observation_space: gym.Space[Any],
        split: str,
        autoreset_mode: str | AutoresetMode,
        render_mode: str | None,
        max_episode_steps: int | None,
        output: str = "numpy",
    ) -> None:
        """Takes a process of n rows.

        Args:
            process: before its first reset.
            action_space, observation_space: of one row.
            split: "train", "validation" or "test".
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array" or "ansi", or "rgb_array_list" or "ansi_list" for all frames since the last
                call, as `gymnasium.wrappers.RenderCollection`.
            max_episode_steps: number of steps after which episodes are truncated, as `gymnasium.wrappers.TimeLimit`;
                None or -1 for no limit.
            output: "numpy" or "torch".

        Raises:
            ValueError: an unknown mode or output, or an invalid number of steps.
        """
        check_render_mode(render_mode, lists=True)
        super().__init__(process, split=split, render_mode=render_mode)
        self.set_output(output)
        if max_episode_steps == -1:
            max_episode_steps = None
        if max_episode_steps is not None:
            check_integer("max_episode_steps", max_episode_steps)
        self.max_episode_steps = max_episode_steps
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            choices = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise ValueError(f"autoreset_mode={autoreset_mode!r}: must be one of {choices}") from error
        self.metadata = type(self).metadata | {"autoreset_mode": self.autoreset_mode}
        self.num_envs = process.count
        self.single_action_space = action_space
        self.single_observation_space = observation_space
        self.action_space = batch_space(action_space, self.num_envs)
        self.observation_space = batch_space(observation_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        self._elapsed = np.zeros(self.num_envs, dtype=np.int64)
        self._frames: list[list[Any]] = [[] for _ in self._recorders]
        self._keeps_frames = frame_mode(render_mode) != render_mode

    def set_output(self, output: str) -> None:
        """Sets what `reset` and `step` return from now on: "numpy" for arrays, or "torch" for tensors.

        Raises:
            ValueError: another output.
        """
        self.output = check_output(output)

    @property
    def _known_options(self) -> tuple[str, ...]:
        return "reset_mask", *self._options

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draws new tasks and starts new episodes.

        Args:
            seed: a number s (row i gets s + i), or a list of one seed, or None, for each row.
            options: {"reset_mask": (num_envs,) bool} resets only those rows. {"task": {...}}, parameters by name as in
                `info["task"]`, each one value for all rows or (num_envs, ...), starts their episodes on these tasks.
                Further options depend on the environment.

        Raises:
            TypeError: a reset mask that is not a bool array.
            ValueError: a list of seeds or a mask of another length, a mask without a True, unknown options, or an
                invalid task.
        """
        options = self._read_options(options)
        rows = np.flatnonzero(self._reset_mask(options.get("reset_mask")))
        if len(rows) < self.num_envs and not self._started:
            raise gym.error.ResetNeeded("call reset() for all environments before resetting some of them")
        parameters = options.get("task")
        given = None if parameters is None else self.process.read_task(parameters, rows)
        self._seed(rows, seed)
        self._apply_options(options)
        info = self._restart_masked(rows, given)
        return self._observations(), info

    def _reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        mask = on_host(mask)  # the ends that `step` returned may be tensors
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options: reset_mask={mask!r}: must be a numpy array of bool")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options: reset_mask={mask!r}: must have shape ({self.num_envs},) and at least one True")
        return mask

    def _seed(self, rows: NDArray[np.int64], seed: int | Sequence[int | None] | None) -> None:
        if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
            seeds: Sequence[int | None] = [int(seed) + row for row in range(self.num_envs)]
        elif seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, Sequence | np.ndarray):
            seeds = seed
        else:
            raise ValueError(f"seed={seed!r}: must be an integer that is not negative, a list of such, or None")
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed: {len(seeds)} seeds given for num_envs={self.num_envs}")
        for row_seed in seeds:
            if row_seed is not None and not (is_integer(row_seed) and row_seed >= 0):
                raise ValueError(f"seed={seed!r}: must be integers that are not negative, or None")
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        fresh = not self.process.streams
        chosen = {
            int(row): int(self.np_random.integers(2**31)) if seeds[row] is None else int(seeds[row] or 0)
            for row in rows
            if fresh or seeds[row] is not None
        }
        self.process.seed(list(chosen), [row_streams(number, self.split) for number in chosen.values()])

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all rows; rows that end are reset as `autoreset_mode` prescribes."""
        self._check_started("step")
        observation, reward, terminated, truncated, info = self._step(actions)
        if self.output == "torch":
            reward = self._to_output(reward.astype(np.float32))
            terminated, truncated = self._to_output(terminated), self._to_output(truncated)
        return observation, reward, terminated, truncated, info

    def _step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """A step, of which all but the observation are arrays."""
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._ended.any():
            return self._step_and_restart(actions)
        outcome = self._act(actions)
        truncated = self._count_steps(None)
        # A new array, since those returned belong to the caller.
        self._ended = outcome.terminated | truncated
        info = with_masks(outcome.info, np.ones(self.num_envs, dtype=np.bool_))
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            ended = self._ended.copy()
            # As in SyncVectorEnv: final_info is the info of the ended rows' last step, info that of their reset.
            final_info = with_masks(outcome.info, ended)
            info = merged(with_masks(outcome.info, ~ended), self._restart_masked(np.flatnonzero(ended)))
            info |= {
                "final_obs": self._final(outcome.observation, ended),
                "_final_obs": ended,
                "final_info": final_info,
                "_final_info": ended,
            }
            return self._observations(), outcome.reward, outcome.terminated, truncated, info
        return self._observations(outcome.observation), outcome.reward, outcome.terminated, truncated, info

    def _step_and_restart(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """A step in which rows that have ended are reset instead; their actions must be valid, but are ignored."""
        ended, no_rows = self._ended, np.zeros(self.num_envs, dtype=np.bool_)
        rows = np.flatnonzero(ended)
        if len(rows) == self.num_envs:
            info = self._restart_masked(rows)
            return self._observations(), np.zeros(self.num_envs), no_rows, no_rows.copy(), info
        outcome = self._act_with_idle_rows(actions, rows)
        truncated = self._count_steps(ended)
        info = merged(with_masks(outcome.info, ~ended), self._restart_masked(rows))
        terminated = outcome.terminated & ~ended
        self._ended = terminated | truncated
        return self._observations(), np.where(ended, 0.0, outcome.reward), terminated, truncated, info

    def _observations(self, flat: Any = None) -> Any:
        """Observations of all rows (n, size), or those of now, in the form that is returned."""
        observations = self._format_observation(self._process_observation() if flat is None else flat, None)
        return observations if self.output == "numpy" else self._to_output(observations)

    def _final(self, flat: Any, ended: NDArray[np.bool_]) -> Any:
        """The observations (n, size) with which rows have ended: as Gymnasium has them, or tensors of all rows."""
        if self.output == "torch":
            return self._observations(flat)
        final = np.full(self.num_envs, None, dtype=object)
        observations = self._format_observation(flat, None)
        in_parts = isinstance(observations, Mapping)
        for row in np.flatnonzero(ended).tolist():
            final[row] = {name: part[row] for name, part in observations.items()} if in_parts else observations[row]
        return final

    @own_state
    def _to_output(self, values: Any) -> Any:
        """Arrays, or dicts of such, as tensors on the device; tensors as they are."""
        if isinstance(values, Mapping):
            return {name: self._to_output(part) for name, part in values.items()}
        return values if isinstance(values, Tensor) else torch.from_numpy(values).to(self.device)

    def _count_steps(self, idle: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Counts a step of all rows but the idle ones and keeps their frames; returns which are truncated (n,) bool."""
        if self._keeps_frames:
            for recorder in self._recorders:
                if idle is None or not idle[recorder.row]:
                    self._frames[recorder.row].append(self._draw(recorder))
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, dtype=np.bool_)
        self._elapsed += 1
        truncated = self._elapsed >= self.max_episode_steps
        return truncated if idle is None else truncated & ~idle

    def _restart_masked(self, rows: NDArray[np.int64], given: Any = None) -> dict[str, Any]:
        info = self._restart(rows, given)
        self._ended = self._ended.copy()
        self._ended[rows] = False
        self._elapsed[rows] = 0
        if self._keeps_frames:
            for row in rows.tolist():
                self._frames[row] = [self._draw(self._recorders[row])]
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[rows] = True
        return with_masks(info, mask)

    @for_rows(takes_row=False)
    def render(self) -> tuple[Any, ...] | None:
        """Every row's frame, or in list modes its frames since the last call or its last reset."""
        self._check_started("render")
        if self.render_mode is None:
            return None
        if self._keeps_frames:
            frames, self._frames = self._frames, [[] for _ in self._recorders]
            return tuple(frames)
        return tuple(self._draw(recorder) for recorder in self._recorders)


def make_native(
    env_id: Any,
    num_envs: int,
    *,
    kind: type,
    known: Iterable[str],
    instead: str,
    arguments: Mapping[str, Any],
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    output: str = "numpy",
) -> ProcessVectorEnv:
    """Makes the native vector environment of an id, as `gym.make_vec`, in any Gymnasium version.

    Args:
        env_id: a registered id ("module:id" imports the module first), or an `EnvSpec`.
        num_envs: number of rows, n.
        kind: required class of the environment.
        known: ids of this package with that class, for the error message.
        instead: what to use for other environments, for the error message.
        arguments: of the environment.
        mode: how rows that end are reset, which the arguments must not contradict.
        output: "numpy" or "torch", likewise.

    Raises:
        ValueError: an id that is not registered, or has no vector entry point of this class; or another autoreset
            mode or output.
        TypeError: an `env_id` that is neither an id nor an `EnvSpec`.
    """
    arguments = dict(arguments)
    given = arguments.pop("autoreset_mode", mode)
    if given not in (mode, mode.value):
        raise ValueError(f"autoreset_mode={given!r}: must be {mode.value!r}")
    given = arguments.pop("output", output)
    if given != output:
        raise ValueError(f"output={given!r}: must be {output!r} here")
    choices = f"must be one of {', '.join(map(repr, known))}, or a custom id whose vector_entry_point makes a "
    choices += f"{kind.__name__}. {instead}"
    spec = _find_spec(env_id, choices)
    entry_point: Any = spec.vector_entry_point
    make: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    if make is None or spec.additional_wrappers or (isinstance(make, type) and not issubclass(make, kind)):
        raise ValueError(f"env_id={spec.id!r}: {choices}")
    kwargs = {name: value for name, value in spec.kwargs.items() if name not in ("num_envs", "vectorization_mode")}
    if spec.max_episode_steps is not None:
        kwargs["max_episode_steps"] = spec.max_episode_steps
    kwargs |= arguments | {"autoreset_mode": mode.value}
    env: ProcessVectorEnv = make(num_envs=num_envs, **kwargs)
    if not isinstance(env, kind):
        env.close()
        raise ValueError(f"env_id={spec.id!r}: {choices}")
    if output != getattr(env, "output", "numpy"):
        # Not by an argument, which environments of the user's need not have.
        env.set_output(output)
        kwargs["output"] = output
    # As gym.make_vec sets it, so that gym.make_vec(env.spec) makes an equal environment.
    env.spec = replace(spec, kwargs=kwargs | {"num_envs": num_envs, "vectorization_mode": "vector_entry_point"})
    return env


def _find_spec(env_id: Any, choices: str) -> EnvSpec:
    """The specification of an id; errors end with `choices`."""
    if isinstance(env_id, EnvSpec):
        return env_id
    if not isinstance(env_id, str):
        raise TypeError(f"env_id={env_id!r}: {choices}")
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gym.spec(name)
    except (ImportError, gym.error.Error) as error:
        raise ValueError(f"env_id={env_id!r}: {choices} ({error})") from error

"""The vector face of a process: a Gymnasium `VectorEnv` over n rows that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from gym_reml.checks import is_integer
from gym_reml.envs.arguments import RENDER_MODES, check_render_mode
from gym_reml.envs.face import Face, for_rows
from gym_reml.envs.infos import merged, with_masks
from gym_reml.streams import row_streams


class RowsVectorEnv(Face, VectorEnv[Any, Any, Any]):
    """n episodes side by side; reset with seed s it equals n single environments reset with s, s + 1, ..."""

    metadata: dict[str, Any] = {
        "render_modes": list(RENDER_MODES),
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def _configure(
        self,
        action_space: gym.Space[Any],
        observation_space: gym.Space[Any],
        autoreset_mode: str | AutoresetMode,
        render_mode: str | None,
    ) -> None:
        """Sets up all that is not the process's own; the process must be there.

        Args:
            action_space, observation_space: of one row.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array" or "ansi".

        Raises:
            ValueError: a mode that does not exist.
        """
        check_render_mode(render_mode)
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            choices = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise ValueError(f"autoreset_mode={autoreset_mode!r}: must be one of {choices}") from error
        self.metadata = type(self).metadata | {"autoreset_mode": self.autoreset_mode}
        self.num_envs = self.process.count
        self.single_action_space = action_space
        self.single_observation_space = observation_space
        self.action_space = batch_space(action_space, self.num_envs)
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.render_mode = render_mode
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)

    @property
    def _known_options(self) -> tuple[str, ...]:
        return "reset_mask", *self._options

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draws new tasks and starts new episodes.

        Args:
            seed: a number s (row i gets s + i), or a list of one seed, or None, for each row.
            options: {"reset_mask": (num_envs,) bool} resets only those rows; {"task": parameters by name, as
                `info["task"]` has them} starts their episodes on those tasks, each parameter being one for all rows, or
                (num_envs, ...); beside these, those of the environment.

        Raises:
            TypeError: a reset mask that is not a bool array.
            ValueError: a list of seeds or a mask of another length, a mask without a True, options that there are not,
                or a task that is none.
        """
        options = self._read_options(options)
        rows = np.flatnonzero(self._reset_mask(options.get("reset_mask")))
        if len(rows) < self.num_envs and not self._started:
            raise gym.error.ResetNeeded("call reset() for all environments before resetting some of them")
        wanted = options.get("task")
        given = None if wanted is None else self.process.read_task(wanted, rows)
        self._seed(rows, seed)
        self._obey(options)
        info = self._restart_masked(rows, given)
        return self._shape(self.process.observe(), None), info

    def _reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
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
        for one in seeds:
            if one is not None and not (is_integer(one) and one >= 0):
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

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Steps all rows; what happens to rows that end is what `autoreset_mode` says."""
        self._check_started("step")
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._ended.any():
            return self._step_and_restart(actions)
        outcome = self._act(actions)
        # A copy: what was returned is the caller's.
        self._ended = outcome.terminated.copy()
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        observation, info = outcome.observation, with_masks(outcome.info, np.ones(self.num_envs, dtype=np.bool_))
        if self.autoreset_mode == AutoresetMode.SAME_STEP and outcome.terminated.any():
            ended = self._ended.copy()
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended).tolist():
                final[row] = self._shape(outcome.observation, row)
            # As in SyncVectorEnv: the ended rows' step is told in final_info, their place is taken by the reset's.
            final_info = with_masks(outcome.info, ended)
            info = merged(with_masks(outcome.info, ~ended), self._restart_masked(np.flatnonzero(ended)))
            info |= {"final_obs": final, "_final_obs": ended, "final_info": final_info, "_final_info": ended}
            observation = self.process.observe()
        return self._shape(observation, None), outcome.reward, outcome.terminated, truncated, info

    def _step_and_restart(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """A step in which rows that ended before are reset instead; their actions must be valid, but do nothing."""
        ended, nothing = self._ended, np.zeros(self.num_envs, dtype=np.bool_)
        rows = np.flatnonzero(ended)
        if len(rows) == self.num_envs:
            info = self._restart_masked(rows)
            return self._shape(self.process.observe(), None), np.zeros(self.num_envs), nothing, nothing.copy(), info
        outcome = self._act_in_part(actions, rows)
        info = merged(with_masks(outcome.info, ~ended), self._restart_masked(rows))
        terminated = outcome.terminated & ~ended
        self._ended = terminated.copy()
        observation = self._shape(self.process.observe(), None)
        return observation, np.where(ended, 0.0, outcome.reward), terminated, nothing, info

    def _restart_masked(self, rows: NDArray[np.int64], given: Any = None) -> dict[str, Any]:
        info = self._restart(rows, given)
        self._ended = self._ended.copy()
        self._ended[rows] = False
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[rows] = True
        return with_masks(info, mask)

    @for_rows(takes_row=False)
    def render(self) -> tuple[Any, ...] | None:
        """Every row's frame."""
        self._check_started("render")
        if self.render_mode is None:
            return None
        return tuple(self._draw(recorder) for recorder in self._recorders)

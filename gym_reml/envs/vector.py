"""The vector face of the process: a Gymnasium `VectorEnv` over n rows that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from gym_reml.envs.base import RENDER_MODES, check_render_mode, draw, observe
from gym_reml.envs.face import Face
from gym_reml.envs.recorder import Recorder
from gym_reml.envs.setup import Setup
from gym_reml.mdp import Outcome
from gym_reml.streams import row_streams


class TrainingVectorEnv(Face, VectorEnv[Any, Any, Any]):
    """n episodes side by side; reset with seed s it equals n single environments reset with s, s + 1, ...

    Attributes:
        mdp: the process, of `num_envs` rows.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    metadata: dict[str, Any] = {
        "render_modes": list(RENDER_MODES),
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        setup: Setup,
        num_envs: int,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        """Wraps a set-up process of `num_envs` rows."""
        check_render_mode(render_mode)
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            choices = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise ValueError(f"autoreset_mode={autoreset_mode!r}: must be one of {choices}") from error
        self.metadata = type(self).metadata | {"autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        self._open(setup)
        self.single_action_space = setup.encoding.space
        self.single_observation_space = setup.space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.render_mode = render_mode
        self._recorders = [Recorder(row) for row in range(num_envs)] if render_mode is not None else []
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        # What rows draw from that step only because all rows step together: nothing they do then is kept.
        self._idle = row_streams(0, setup.mdp.family.split)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (num_envs, choices) bool."""
        return self.action_encoding.mask(self.mdp.allowed())

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draws new tasks and starts new networks.

        Args:
            seed: a number s (row i gets s + i), or a list of one seed, or None, for each row.
            options: {"reset_mask": (num_envs,) bool} resets only those rows; {"pool": "initial"} writes the pool's
                initial weights back (only where it learns).

        Raises:
            TypeError: a reset mask that is not a bool array.
            ValueError: a list of seeds or a mask of another length, or a mask without a True.
        """
        rows = np.flatnonzero(self._reset_mask(options))
        if len(rows) < self.num_envs and not self.mdp.streams:
            raise gym.error.ResetNeeded("call reset() for all environments before resetting some of them")
        self._seed(rows, seed)
        self._restore_pool(options)
        info = self._restart(rows)
        return self._observe(self.mdp.observe()), info

    def _reset_mask(self, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options: reset_mask={mask!r}: must be a numpy array of bool")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options: reset_mask={mask!r}: must have shape ({self.num_envs},) and at least one True")
        return mask

    def _seed(self, rows: NDArray[np.int64], seed: int | Sequence[int | None] | None) -> None:
        if isinstance(seed, int | np.integer):
            seeds: Sequence[int | None] = [int(seed) + row for row in range(self.num_envs)]
        elif seed is None:
            seeds = [None] * self.num_envs
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed: {len(seeds)} seeds given for num_envs={self.num_envs}")
        for one in seeds:
            if one is not None and (isinstance(one, bool) or not isinstance(one, int | np.integer) or one < 0):
                raise ValueError(f"seed={seed!r}: must be integers that are not negative, or None")
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        fresh = not self.mdp.streams
        chosen = {
            int(row): int(self.np_random.integers(2**31)) if seeds[row] is None else int(seeds[row] or 0)
            for row in rows
            if fresh or seeds[row] is not None
        }
        split = self.mdp.family.split
        self.mdp.seed(list(chosen), [row_streams(number, split) for number in chosen.values()])

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Steps all rows; what happens to rows that end is what `autoreset_mode` says."""
        if not self.mdp.streams:
            raise gym.error.ResetNeeded("call reset() before step()")
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._ended.any():
            return self._step_and_restart(actions)
        outcome = self._act(actions)
        self._ended = outcome.terminated
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        observation, info = outcome.observation, _with_masks(outcome.info, np.ones(self.num_envs, dtype=np.bool_))
        if self.autoreset_mode == AutoresetMode.SAME_STEP and outcome.terminated.any():
            ended = outcome.terminated
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended).tolist():
                final[row] = observe(outcome.observation, self.mdp.parts, self.single_observation_space, row)
            # As in SyncVectorEnv: the ended rows' step is told in final_info, their place is taken by the reset's.
            final_info = _with_masks(outcome.info, ended)
            info = _merge(_with_masks(outcome.info, ~ended), self._restart(np.flatnonzero(ended)))
            info |= {"final_obs": final, "_final_obs": ended, "final_info": final_info, "_final_info": ended}
            observation = self.mdp.observe()
        return self._observe(observation), outcome.reward, outcome.terminated, truncated, info

    def _step_and_restart(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """A step in which rows that ended before are reset instead; their actions must be valid, but do nothing."""
        ended, nothing = self._ended, np.zeros(self.num_envs, dtype=np.bool_)
        if ended.all():
            info = self._restart(np.flatnonzero(ended))
            return self._observe(self.mdp.observe()), np.zeros(self.num_envs), nothing, nothing.copy(), info
        rows = np.flatnonzero(ended)
        own = [self.mdp.streams[row] for row in rows]
        self.mdp.seed(rows, [self._idle] * len(rows))
        try:
            outcome = self._act(actions)
        finally:
            self.mdp.seed(rows, own)
        info = _merge(_with_masks(outcome.info, ~ended), self._restart(rows))
        terminated = outcome.terminated & ~ended
        self._ended = terminated
        return self._observe(self.mdp.observe()), np.where(ended, 0.0, outcome.reward), terminated, nothing, info

    def _act(self, actions: Any) -> Outcome:
        generators = [stream.ties for stream in self.mdp.streams]
        layers, steps = self.action_encoding.decode(actions, self.mdp.allowed(), generators)
        outcome = self.mdp.step(layers, steps)
        for recorder in self._recorders:
            recorder.record(self.mdp, int(layers[recorder.row]), outcome.info)
        return outcome

    def _restart(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        info = self.mdp.reset(rows)
        self._ended = self._ended.copy()
        self._ended[rows] = False
        for row in rows if self._recorders else ():
            self._recorders[row].restart(self.mdp)
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[rows] = True
        info["pool"] = np.full(self.num_envs, self._pool_source, dtype=object)
        return _with_masks(info, mask)

    def _observe(self, flat: NDArray[np.float32]) -> Any:
        return observe(flat, self.mdp.parts, self.single_observation_space, None)

    def render(self) -> tuple[Any, ...] | None:
        """Every row's frame."""
        if self.render_mode is None:
            return None
        return tuple(draw(recorder, self.mdp, self.render_mode) for recorder in self._recorders)


def _with_masks(info: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Gymnasium's vector info: values of the rows in `mask` (zero elsewhere), and beside each name the mask."""
    if not mask.any():
        return {}
    masked: dict[str, Any] = {}
    for name, values in info.items():
        masked[name] = _with_masks(values, mask) if isinstance(values, dict) else _blank(values, mask)
        masked[f"_{name}"] = mask.copy()
    return masked


def _blank(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    if mask.all():
        return values
    blanked = values.copy()
    blanked[~mask] = None if values.dtype == object else 0
    return blanked


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two vector infos about different rows, as one."""
    merged = dict(first)
    for name, values in second.items():
        if name.startswith("_"):
            merged[name] = values | first[name] if name in first else values
        elif name not in first:
            merged[name] = values
        elif isinstance(values, dict):
            merged[name] = _merge(first[name], values)
        else:
            merged[name] = np.where(second[f"_{name}"], values, first[name])
    return merged

"""The single face of a process: a Gymnasium `Env` over one row."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from gym_reml.envs.arguments import RENDER_MODES
from gym_reml.envs.face import Face
from gym_reml.envs.infos import only_row
from gym_reml.streams import row_streams


class RowEnv(Face, gym.Env[Any, Any]):
    """One episode at a time."""

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 2}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws a new task and starts a new episode.

        Args:
            seed: everything from here on follows from it.
            options: those of the environment, if it has any.
        """
        super().reset(seed=seed)
        if seed is None and not self.process.streams:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self.process.seed([0], [row_streams(seed, self.split)])
        self._obey(options)
        info = self._restart(None)
        return self._shape(self.process.observe(), 0), only_row(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step; episodes are never truncated."""
        if not self.process.streams:
            raise gym.error.ResetNeeded("call reset() before step()")
        outcome = self._act(_batched(action))
        return (
            self._shape(outcome.observation, 0),
            float(outcome.reward[0]),
            bool(outcome.terminated[0]),
            False,
            only_row(outcome.info),
        )

    def render(self) -> Any:
        """The episode so far: a picture (H, W, 3) uint8, or a text."""
        if not self._recorders:
            gym.logger.warn(
                "render() was called on an environment made without render_mode; choose 'rgb_array' or 'ansi'"
            )
            return None
        return self._draw(self._recorders[0])


def _batched(action: Any) -> Any:
    """One action as a batch of one."""
    if isinstance(action, dict):
        return {name: np.asarray(value)[None] for name, value in action.items()}
    return np.asarray(action)[None]

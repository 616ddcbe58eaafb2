"""A Gymnasium `Env` over a process of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from gym_reml.envs.common.arguments import RENDER_MODES, check_render_mode
from gym_reml.envs.common.infos import only_row
from gym_reml.envs.common.view import ProcessView
from gym_reml.mdp.process import Process
from gym_reml.spaces.base import ActionError, on_host
from gym_reml.streams import row_streams


class ProcessEnv(ProcessView, gym.Env[Any, Any]):
    """A single environment over a process of one row."""

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 2}

    def __init__(
        self,
        process: Process,
        action_space: gym.Space[Any],
        *,
        observation_space: gym.Space[Any],
        split: str,
        render_mode: str | None,
    ) -> None:
        """Takes a process of one row.

        Args:
            process: before its first reset.
            action_space, observation_space: of the environment.
            split: "train", "validation" or "test".
            render_mode: None, "rgb_array" or "ansi".

        Raises:
            ValueError: an unknown render mode.
        """
        check_render_mode(render_mode)
        super().__init__(process, split=split, render_mode=render_mode)
        self.action_space, self.observation_space = action_space, observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws a new task and starts a new episode.

        Args:
            seed: determines all random numbers from now on.
            options: {"task": {...}}, parameters by name as in `info["task"]`, starts the episode on that task; further
                options depend on the environment.

        Raises:
            ValueError: unknown options, or an invalid task.
        """
        options = self._read_options(options)
        parameters, only_row_index = options.get("task"), np.zeros(1, dtype=np.int64)
        given = None if parameters is None else self.process.read_task(parameters, only_row_index)
        super().reset(seed=seed)
        if seed is None and not self.process.streams:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self.process.seed([0], [row_streams(seed, self.split)])
        self._apply_options(options)
        info = self._restart(None, given)
        return self._format_observation(self._process_observation(), 0), self._format_info(only_row(info))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step; episodes are never truncated.

        Raises:
            ValueError: an invalid action.
        """
        self._check_started("step")
        try:
            outcome = self._act(_batched(action))
        except ActionError as error:
            raise error.of_one() from None
        return (
            self._format_observation(outcome.observation, 0),
            float(outcome.reward[0]),
            bool(outcome.terminated[0]),
            False,
            self._format_info(only_row(outcome.info)),
        )

    def render(self) -> Any:
        """The episode so far: an image (H, W, 3) uint8, or a text; warns without a render mode."""
        self._check_started("render")
        if not self._recorders:
            gym.logger.warn(
                "render() was called on an environment made without render_mode; choose 'rgb_array' or 'ansi'"
            )
            return None
        return self._draw(self._recorders[0])


def _batched(action: Any) -> Any:
    """One action as a batch of one."""
    if isinstance(action, Mapping):
        return {name: _batched(value) for name, value in action.items()}
    try:
        return np.asarray(on_host(action))[None]
    except (TypeError, ValueError) as error:
        raise ValueError(f"action={action!r}: is no array") from error

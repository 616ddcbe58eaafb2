"""The single face of the process: a Gymnasium `Env` over one row."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.face import Face
from gym_reml.envs.recorder import Recorder
from gym_reml.envs.setup import Setup
from gym_reml.rendering import render_ansi, render_rgb
from gym_reml.streams import row_streams

RENDER_MODES = ("rgb_array", "ansi")


class TrainingEnv(Face, gym.Env[Any, Any]):
    """One episode at a time.

    Attributes:
        mdp: the process, of one row.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 2}

    def __init__(self, setup: Setup, render_mode: str | None = None) -> None:
        """Wraps a set-up process of one row."""
        check_render_mode(render_mode)
        self._open(setup)
        self.action_space = setup.encoding.space
        self.observation_space = setup.space
        self.render_mode = render_mode
        self._recorder = Recorder(0) if render_mode is not None else None

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (choices,) bool."""
        mask: NDArray[np.bool_] = self.action_encoding.mask(self.mdp.allowed())[0]
        return mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws a new task and starts a new network.

        Args:
            seed: everything from here on follows from it.
            options: {"pool": "initial"} writes the pool's initial weights back (only where it learns).
        """
        super().reset(seed=seed)
        if seed is None and not self.mdp.streams:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self.mdp.seed([0], [row_streams(seed, self.mdp.family.split)])
        self._restore_pool(options)
        info = self.mdp.reset()
        if self._recorder is not None:
            self._recorder.restart(self.mdp)
        return observe(self.mdp.observe(), self.mdp.parts, self.observation_space, 0), {
            "pool": self._pool_source,
            **_single(info),
        }

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Appends a layer, takes a gradient step."""
        if not self.mdp.streams:
            raise gym.error.ResetNeeded("call reset() before step()")
        generators = [self.mdp.streams[0].ties]
        layers, steps = self.action_encoding.decode(_batched(action), self.mdp.allowed(), generators)
        outcome = self.mdp.step(layers, steps)
        if self._recorder is not None:
            self._recorder.record(self.mdp, int(layers[0]), outcome.info)
        observation = observe(outcome.observation, self.mdp.parts, self.observation_space, 0)
        return (
            observation,
            float(outcome.reward[0]),
            bool(outcome.terminated[0]),
            False,
            _single(outcome.info),
        )

    def render(self) -> Any:
        """The network being built: a picture (H, W, 3) uint8, or a text."""
        if self._recorder is None:
            gym.logger.warn(
                "render() was called on an environment made without render_mode; choose 'rgb_array' or 'ansi'"
            )
            return None
        return draw(self._recorder, self.mdp, self.render_mode)


def check_render_mode(render_mode: str | None) -> None:
    """Raises a ValueError that lists the choices if there is no such mode."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode={render_mode!r}: must be None or one of {', '.join(map(repr, RENDER_MODES))}")


def draw(recorder: Recorder, mdp: Any, render_mode: str | None) -> Any:
    """The row's frame in that mode."""
    frame = recorder.frame(mdp)
    return render_ansi(frame) if render_mode == "ansi" else render_rgb(frame)


def observe(flat: NDArray[np.float32], parts: dict[str, slice], space: gym.Space[Any], row: int | None) -> Any:
    """Observations as the space has them; of one row, or of all (None)."""
    chosen = flat if row is None else flat[row]
    if isinstance(space, gym.spaces.Dict):
        return {name: chosen[..., parts[name]] for name in space}
    return chosen


def _batched(action: Any) -> Any:
    """One action as a batch of one."""
    if isinstance(action, dict):
        return {name: np.asarray(value)[None] for name, value in action.items()}
    return np.asarray(action)[None]


def _single(info: dict[str, Any]) -> dict[str, Any]:
    """The info of the only row, as plain Python values."""
    return {name: _single(values) if isinstance(values, dict) else values.item() for name, values in info.items()}

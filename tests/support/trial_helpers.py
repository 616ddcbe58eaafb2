"""Simple inner environments for trials, as references."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

TRIAL_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bandit": ("BanditTrial-v0", {"arms": 3, "episodes": 4}),
    "bandit, burn-in": ("BanditTrial-v0", {"arms": 2, "episodes": 5, "burn_in": 2, "split": "test"}),
    "tabular": ("TabularTrial-v0", {"states": 4, "actions": 3, "steps": 3, "episodes": 2}),
    "tabular, burn-in": ("TabularTrial-v0", {"states": 2, "actions": 2, "steps": 2, "episodes": 3, "burn_in": 1}),
    "navigation": ("NavigationTrial-v0", {"steps": 4, "episodes": 2}),
    "navigation, burn-in": ("NavigationTrial-v0", {"steps": 3, "episodes": 3, "burn_in": 2, "split": "validation"}),
}
"""An id and arguments for every trial environment, with and without a burn-in."""


class PlainNavigation(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """MAML's navigation as a single environment, without time limit."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.goal = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = np.zeros(2)
        return self.position.astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        for axis in range(2):
            self.position[axis] += min(max(0.1 * float(action[axis]), -0.1), 0.1)
        dx, dy = self.position - self.goal
        reached = abs(dx) < 0.01 and abs(dy) < 0.01
        return self.position.astype(np.float32), -float(np.hypot(dx, dy)), bool(reached), False, {}


def draw_goal(generator: np.random.Generator) -> dict[str, Any]:
    return {"goal": generator.random(2) - 0.5}


def set_goal(env: gym.Env[Any, Any], task: dict[str, Any]) -> None:
    env.unwrapped.goal = task["goal"]  # type: ignore[attr-defined]


class Chain(gym.Env[Any, Any]):
    """Counts its steps; ends after `length` steps; the reward is 10 plus the action; draws a number at reset."""

    def __init__(self, actions: gym.Space[Any], observations: gym.Space[Any] | None = None) -> None:
        self.action_space = actions
        self.observation_space = observations or gym.spaces.Box(-100.0, 100.0, (2,), np.float32)
        self.length = 2
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.clock, self.resets = 0, self.resets + 1
        self.number = float(self.np_random.random())
        return self._observe(), {"options": options}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        return self._observe(), 10.0 + float(np.sum(action)), self.clock >= self.length, False, {"clock": self.clock}

    def _observe(self) -> Any:
        return np.array([self.clock, self.number], dtype=np.float32)


def draw_length(generator: np.random.Generator) -> dict[str, Any]:
    return {"length": int(generator.integers(2, 5))}


def set_length(env: gym.Env[Any, Any], task: dict[str, Any]) -> None:
    env.unwrapped.length = task["length"]  # type: ignore[attr-defined]

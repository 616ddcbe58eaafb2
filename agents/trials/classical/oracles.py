"""Policies that are told the tasks of trials: upper bounds, no baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.policies.point import LARGEST_MOVE


class BestArm:
    """Pulls the arm of a bandit that has the highest mean."""

    def inform(self, info: dict[str, Any]) -> None:
        """Takes the tasks from the vector environment's info at reset."""
        self._best: NDArray[np.int64] = info["task"]["means"].argmax(axis=1)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.int64], Any]:
        """The arms (n,), whatever the observations."""
        return self._best, state


class StraightToTheGoal:
    """Goes to the goal of 2D navigation as fast as it may."""

    def inform(self, info: dict[str, Any]) -> None:
        """Takes the tasks from the vector environment's info at reset."""
        self._goals: NDArray[np.float64] = info["task"]["goal"]

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.float32], Any]:
        """Velocities (n, 2) for observations (n, 6), which begin with the position."""
        left = (self._goals - observation[:, :2]) / LARGEST_MOVE
        return np.clip(left, -1.0, 1.0).astype(np.float32), state

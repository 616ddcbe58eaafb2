"""Dynamics of MAML's 2D navigation (Finn et al. 2017, arXiv:1703.03400, section 5.3)."""

from __future__ import annotations

from typing import Any

LARGEST_MOVE = 0.1
"""Largest displacement along each axis in a step; larger ones are clipped."""

GOAL_RANGE = (-0.5, 0.5)
"""Range of each coordinate of the goal, which is uniform."""

REACHED = 0.01
"""An episode ends when both coordinates are this close to the goal's."""

EPISODE_STEPS = 100
"""Largest number of steps of an episode."""


def advance(position: Any, action: Any, goal: Any) -> tuple[Any, Any, Any]:
    """One step of points that start at (0, 0); the reward is minus the distance to the goal.

    Args:
        position, action, goal: arrays or tensors (..., 2); the action is a displacement.

    Returns:
        New positions (..., 2), rewards (...) and whether the goal was reached (...) bool.
    """
    position = position + action.clip(-LARGEST_MOVE, LARGEST_MOVE)
    offset = position - goal
    return position, -((offset**2).sum(-1) ** 0.5), (abs(offset) < REACHED).all(-1)

"""A point on the plane that is to reach a goal: MAML's 2-D navigation (Finn et al. 2017, section 5.3)."""

from __future__ import annotations

from typing import Any

LARGEST_MOVE = 0.1
"""Of each axis in one step; larger ones are cut."""

GOAL_RANGE = (-0.5, 0.5)
"""Of each axis of the goals, uniform."""

REACHED = 0.01
"""An episode is over when both axes are this close to the goal's."""

EPISODE_STEPS = 100
"""An episode's longest."""


def advance(position: Any, action: Any, goal: Any) -> tuple[Any, Any, Any]:
    """One step of points that start at (0, 0) and are paid minus the distance to the goal.

    Args:
        position, action, goal: arrays or tensors (..., 2), the action a velocity.

    Returns:
        New positions (..., 2), rewards (...) and whether the goal was reached (...) bool.
    """
    position = position + action.clip(-LARGEST_MOVE, LARGEST_MOVE)
    offset = position - goal
    return position, -((offset**2).sum(-1) ** 0.5), (abs(offset) < REACHED).all(-1)

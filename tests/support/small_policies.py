"""Small families of policies and small recipes for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents.problems.problem import Problem
from agents.problems.recipes import POLICIES, POLICY_BATCH, Recipe
from gym_reml.tasks.policies.base import PolicyFamily
from gym_reml.tasks.policies.navigation import Navigation

TINY: dict[str, Any] = {"shots": 3, "queries": 3, "steps": 5}
RECIPE = replace(POLICIES, width=8, bootstrap_iterations=2, total_steps=80, n_envs=4)


def family(**arguments: Any) -> PolicyFamily:
    return Navigation(**(TINY | arguments))


def problem(tasks: int = 3 * POLICY_BATCH, recipe: Recipe = RECIPE, seed: int = 0) -> Problem:
    return Problem(family(), recipe, tasks, seed)


def ignore(*_: Any) -> None:
    """Hides progress bars."""

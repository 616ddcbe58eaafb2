"""Task families, distributions of small learning problems: `FAMILIES` by name, and functions that make others."""

from __future__ import annotations

from gym_reml.tasks.base import SPLITS, Batch, TaskFamily, Tasks
from gym_reml.tasks.custom import from_arrays, from_function
from gym_reml.tasks.images.labelled import from_classes
from gym_reml.tasks.policies.gymnasium import from_gymnasium
from gym_reml.tasks.registry import FAMILIES, make_family

__all__ = [
    "FAMILIES",
    "SPLITS",
    "Batch",
    "TaskFamily",
    "Tasks",
    "from_arrays",
    "from_classes",
    "from_function",
    "from_gymnasium",
    "make_family",
]

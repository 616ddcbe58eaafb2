"""Trained learners that the package ships: tensors and JSON, and how each does on held-out tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gym_reml.evaluation.meta_learner import MetaLearner

FOLDER = Path(__file__).resolve().parent.parent / "data" / "learners"
"""A folder for each learner, FAMILY/NAME, with learner.pt and about.json; `agents.comparison.packaged` makes them."""


def names() -> list[str]:
    """The names of all trained learners that the package ships, such as "sinusoid/reml"."""
    return sorted(path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*/about.json"))


def load(name: str) -> MetaLearner:
    """A trained learner that the package ships.

    Args:
        name: FAMILY/NAME, one of `names()`.

    Returns:
        The learner, to be evaluated, drawn or trained on from.

    Raises:
        ValueError: no such learner; the message lists the choices.
        ImportError: its policy is one of Stable-Baselines3, which is not installed.
    """
    return MetaLearner.load(_folder(name))


def about(name: str) -> dict[str, Any]:
    """What is known of a trained learner that the package ships.

    Args:
        name: FAMILY/NAME, one of `names()`.

    Returns:
        The command that made it, the family and shots that it was trained on, its number of learned parameters, the
        versions it was made with, and its row: number of held-out test tasks from seed 0,
        metric, and by number of gradient steps mean, median and half-width of the 95 % interval of the metric.

    Raises:
        ValueError: no such learner; the message lists the choices.
    """
    found: dict[str, Any] = json.loads((_folder(name) / "about.json").read_text(encoding="utf-8"))
    return found


def _folder(name: str) -> Path:
    choices = names()
    if name not in choices:
        raise ValueError(f"name={name!r}: must be one of {', '.join(map(repr, choices))}")
    return FOLDER / name

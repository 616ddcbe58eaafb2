"""Policies that follow a plan, or are shown the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gym_reml.evaluation.meta_learner import MetaLearner
from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import ActionEncoding, make_encoding


class Plan:
    """A policy that ignores what it sees: layers and steps in a fixed order, the last step repeated with layer 0."""

    def __init__(self, encoding: ActionEncoding, layers: Sequence[int], step: float) -> None:
        """Plans to append `layers` one by one, with one step size throughout (in [-1, 1])."""
        self.encoding, self.layers, self.step = encoding, tuple(layers), step

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The plan's next action, for all rows alike; the state counts."""
        moment = 0 if state is None else state
        count = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        layer = self.layers[moment] if moment < len(self.layers) else 0
        actions = self.encoding.encode(np.full(count, layer), np.full(count, self.step, dtype=np.float32))
        return actions, moment + 1


def plan_learner(
    name: str, pool: LayerPool, arguments: dict[str, Any], layers: Sequence[int], step: float
) -> MetaLearner:
    """A learner that follows a plan."""
    # Boxes hold any step; finite encodings would round the grid.
    arguments = arguments | {"action": "box"}
    return MetaLearner(name, Plan(make_encoding("box", pool.layers, 1), layers, step), pool, arguments)


@runtime_checkable
class Planner(Protocol):
    """A policy that looks at more than observations: it is shown the process when episodes begin.

    It may look at the support sets and try networks of its own on them, as structure search does. What it must not
    touch are the query sets.
    """

    def prepare(self, mdp: TrainingMDP) -> None:
        """Called after the process was reset, before the first action."""
        ...

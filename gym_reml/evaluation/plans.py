"""Policies that follow a plan, or are shown the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gym_reml.evaluation.meta_learner import MetaLearner
from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import ActionEncoding, Decided, layer_and_step, make_encoding


class Plan:
    """A policy that ignores what it sees and decides what was planned, for all rows alike.

    `Plan(encoding, layer=(1, 2), step_size=0.5)` appends layers 1 and 2, then none, with one step size throughout.
    """

    def __init__(self, encoding: ActionEncoding, **planned: Any) -> None:
        """Plans by the names of the encoding's decision: one value throughout, or one a step and then 0.

        Raises:
            ValueError: an unknown name.
        """
        self.encoding, self.planned = encoding, planned
        self._decide(0, 1)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The plan's next actions; the state is the number of steps taken."""
        step = 0 if state is None else state
        count = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return self.encoding.encode(self._decide(step, count)), step + 1

    def _decide(self, step: int, count: int) -> Decided:
        now = {
            name: values if np.ndim(values) == 0 else values[step] if step < len(values) else 0
            for name, values in self.planned.items()
        }
        return self.encoding.decision.decide(count, **now)


def plan_learner(
    name: str, pool: LayerPool, arguments: dict[str, Any], layers: Sequence[int], step: float
) -> MetaLearner:
    """A learner that follows a plan."""
    # Boxes hold any step; finite encodings would round the grid.
    arguments = arguments | {"action": "box"}
    encoding = make_encoding("box", layer_and_step(pool.layers))
    return MetaLearner(name, Plan(encoding, layer=layers, step_size=step), pool, arguments)


@runtime_checkable
class Planner(Protocol):
    """A policy that looks at more than observations: it is shown the process when episodes begin.

    It may look at the support sets and try networks of its own on them, as structure search does. What it must not
    touch are the query sets.
    """

    def prepare(self, mdp: TrainingMDP) -> None:
        """Called after the process was reset, before the first action."""
        ...

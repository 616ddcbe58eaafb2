"""Policies with a fixed plan, and policies that read the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gym_reml.evaluation.meta_learner import MetaLearner, decision_of
from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import ActionEncoding, Decided, make_encoding


class Plan:
    """An open-loop policy: it ignores observations and takes the same planned decisions in all rows.

    `Plan(encoding, layer=(1, 2), step_size=0.5)` appends layer 1, then layer 2, then none, all at one step size.
    """

    def __init__(self, encoding: ActionEncoding, **planned: Any) -> None:
        """Takes the plan.

        Args:
            encoding: of the actions.
            **planned: by name of the encoding's decision: one value for all steps, or a sequence with one for each
                step, followed by 0.

        Raises:
            ValueError: an unknown name.
        """
        self.encoding, self.planned = encoding, planned
        self._decide(0, 1)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The next planned actions, and as the state the number of steps taken."""
        step = 0 if state is None else state
        count = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return self.encoding.encode(self._decide(step, count)), step + 1

    def _decide(self, step: int, count: int) -> Decided:
        step_values = {
            name: values if np.ndim(values) == 0 else values[step] if step < len(values) else 0
            for name, values in self.planned.items()
        }
        return self.encoding.decision.decide(count, **step_values)


def plan_learner(
    name: str, pool: LayerPool, arguments: dict[str, Any], layers: Sequence[int], step: float
) -> MetaLearner:
    """A learner whose policy is a `Plan`.

    Args:
        name: in tables.
        pool: layers that networks are built from.
        arguments: of the environment.
        layers: pool numbers to append in the first steps.
        step: size of all gradient steps, as a place in [-1, 1] on the logarithmic range.
    """
    # A Box holds any step size; finite encodings would round it.
    arguments = arguments | {"action": "box"}
    encoding = make_encoding("box", decision_of(pool, arguments))
    return MetaLearner(name, Plan(encoding, layer=layers, step_size=step), pool, arguments)


@runtime_checkable
class Planner(Protocol):
    """A policy that reads the process itself when episodes begin, as structure search does.

    It may train its own networks on the support sets. It must not use the query sets.
    """

    def prepare(self, mdp: TrainingMDP) -> None:
        """Called after a reset of the process, before the first action."""
        ...

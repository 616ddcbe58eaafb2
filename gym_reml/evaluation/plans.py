"""Learners whose policy is a fixed plan, and policies that read the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from gym_reml.evaluation.meta_learner import MetaLearner, decision_of
from gym_reml.evaluation.open_loop import Plan as Plan
from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import make_encoding


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

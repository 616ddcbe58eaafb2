"""The standard controls: ablations and searches that separate the agent's contribution from the pool's.

Each takes a learner and a family, and the keyword arguments of `evaluate` other than `intervene` and `blindfold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.evaluation.meta_learner import MetaLearner, decision_of
from gym_reml.evaluation.plans import Plan, plan_learner
from gym_reml.evaluation.protocol import TASKS, at_most, evaluate, evaluate_all
from gym_reml.evaluation.results import Result
from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import Decided
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

STEP_GRID = (-0.5, 0.0, 0.25, 0.5, 0.75)
"""Candidates for a constant step size, as places in [-1, 1] on the logarithmic range."""

SCRATCH_STEPS = (1e-3, 3.0)
"""Range of step sizes for training from scratch."""


def random_layer(learner: MetaLearner, family: TaskFamily | str, **protocol: Any) -> Result:
    """Ablation: each appended layer is replaced by a random one that is not an initial layer; step sizes are kept."""
    layers, decision = np.array(candidates(learner)), decision_of(learner.pool, learner.arguments)

    def intervene(decided: Decided, generators: Sequence[np.random.Generator]) -> Decided:
        drawn = layers[[generator.integers(len(layers)) for generator in generators]]
        return decision.changed(decided, layer=np.where(decision.column(decided, "layer") > 0, drawn, 0))

    result = evaluate(learner, family, intervene=intervene, **protocol)
    return replace(result, learner=f"{learner.name}/random_layer")


def constant_step(
    learner: MetaLearner, family: TaskFamily | str, *, tuning_tasks: int = 200, **protocol: Any
) -> Result:
    """Ablation: one constant step size, tuned on validation tasks; the learner's layers are kept."""
    decision = decision_of(learner.pool, learner.arguments)

    def with_step(size: float, **changes: Any) -> Result:
        return evaluate(
            learner,
            family,
            intervene=lambda decided, generators: decision.changed(decided, step_size=size),
            **(protocol | changes),
        )

    def validation_score(size: float) -> float:
        tuning = with_step(size, **tuning_protocol(learner, family, tuning_tasks))
        return float(scores(tuning, learner, family).mean())

    best = min(STEP_GRID, key=validation_score)
    return replace(with_step(best), learner=f"{learner.name}/constant_step", notes={"step": best})


def shuffled_observation(learner: MetaLearner, family: TaskFamily | str, **protocol: Any) -> Result:
    """Ablation: the learner receives the observation of another task, the previous one.

    Raises:
        ValueError: fewer than two tasks.
    """
    tasks = protocol.get("tasks")
    tasks = at_most(TASKS, family, protocol.get("split", "test")) if tasks is None else tasks
    if tasks < 2:
        raise ValueError(f"tasks={tasks!r}: must be at least 2, to receive the observation of another task")
    result = evaluate(learner, family, blindfold=lambda flat: np.roll(flat, 1, axis=0), **protocol)
    return replace(result, learner=f"{learner.name}/shuffled_observation")


def zeroed_observation(learner: MetaLearner, family: TaskFamily | str, **protocol: Any) -> Result:
    """Ablation: all observations are zero."""
    result = evaluate(learner, family, blindfold=np.zeros_like, **protocol)
    return replace(result, learner=f"{learner.name}/zeroed_observation")


def candidates(learner: MetaLearner) -> list[int]:
    """Pool numbers of the layers that may be appended: all but the initial ones, or all if no others exist."""
    layers = range(1, learner.pool.layers + 1)
    initial = learner.arguments.get("initial_layers", ())
    return [layer for layer in layers if layer not in initial] or list(layers)


def compositions(learner: MetaLearner) -> list[tuple[int, ...]]:
    """All sequences of layers that fill the free slots of the learner's networks."""
    free = slots(learner) - len(learner.arguments.get("initial_layers", ()))
    return list(product(candidates(learner), repeat=free))


def best_composition(
    learner: MetaLearner, family: TaskFamily | str, *, tuning_tasks: int = 100, **protocol: Any
) -> Result:
    """The composition and constant step size that are best on validation tasks, the same for every task."""
    name = f"{learner.name}/best_composition"

    plans = plans_of(learner, name)
    best = best_of(list(plans.values()), family, tuning_tasks=tuning_tasks, **protocol)
    (layers, step), plan = list(plans.items())[best]
    return replace(evaluate(plan, family, **protocol), notes={"layers": list(layers), "step": step})


def oracle(learner: MetaLearner, family: TaskFamily | str, **protocol: Any) -> Result:
    """For each task the composition and constant step size with the best mean query score over the horizon.

    The search uses the query set: an upper bound that no learner can be expected to reach.
    """
    name = f"{learner.name}/oracle"
    plans = list(plans_of(learner, name).values())
    steps = tuple(range(1, horizon(learner) + 1))
    found = evaluate_all(plans, family, **(protocol | {"steps": steps}))
    score = np.stack([scores(result, learner, family) for result in found])
    best: list[Any] = [plan.policy for plan in plans]
    chosen = replace(plans[0], policy=_PlanOfEach([best[place] for place in score.argmin(axis=0)]))
    result = evaluate(chosen, family, **protocol)
    return replace(result, notes={"return": float(-score.min(axis=0).mean())})


class _PlanOfEach:
    """A plan of its own for each task, in their order."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans, self._first, self._count = plans, 0, 0

    def prepare(self, mdp: TrainingMDP) -> None:
        """The next tasks begin, or the first ones again."""
        self._first = (self._first + self._count) % len(self._plans)
        self._count = mdp.count

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As that of the rows' plans."""
        plans = self._plans[self._first : self._first + self._count]
        actions = np.empty((self._count, plans[0].encoding.decision.size), dtype=np.float32)
        for plan in set(plans):
            rows = [row for row, other in enumerate(plans) if other is plan]
            actions[rows], after = plan.predict(actions[rows], state)
        return actions, after


def plans_of(learner: MetaLearner, name: str) -> dict[tuple[tuple[int, ...], float], MetaLearner]:
    """A learner of this name for every composition and step size of `STEP_GRID`."""
    return {
        (layers, step): plan_learner(name, learner.pool, learner.arguments, layers, step)
        for layers, step in product(compositions(learner), STEP_GRID)
    }


def from_scratch(
    learner: MetaLearner,
    family: TaskFamily | str,
    *,
    tuning_tasks: int = 200,
    pool_seed: int = 0,
    **protocol: Any,
) -> Result:
    """Baseline: a network of the learner's shape with random weights, all trained; step size tuned on validation."""
    fresh = learner.pool.renewed(layers=slots(learner), seed=pool_seed)
    low, high = SCRATCH_STEPS
    changes = {"initial_layers": list(range(1, slots(learner) + 1)), "min_step": low, "max_step": high}
    arguments = learner.arguments | changes
    tuned, step = tune_step("scratch", fresh, arguments=arguments, family=family, tuning_tasks=tuning_tasks, **protocol)
    return replace(evaluate(tuned, family, **protocol), notes={"step": step})


def tune_step(
    name: str,
    pool: LayerPool,
    *,
    arguments: dict[str, Any],
    family: TaskFamily | str,
    tuning_tasks: int,
    **protocol: Any,
) -> tuple[MetaLearner, float]:
    """A learner that appends no layer, with the constant step size that is best on validation tasks.

    Args:
        name: of the learner.
        pool: layers that its networks are built from.
        arguments: of the environment.
        family: of tasks.
        tuning_tasks: number of validation tasks.
        **protocol: further arguments of `evaluate`.

    Returns:
        The learner, and the step size as a place in [-1, 1] on the logarithmic range, one of 13.
    """
    steps = np.linspace(-1.0, 1.0, 13).tolist()
    learners = [plan_learner(name, pool, arguments, (), step) for step in steps]
    best = best_of(learners, family, tuning_tasks=tuning_tasks, **protocol)
    return learners[best], steps[best]


def best_of(learners: Sequence[MetaLearner], family: TaskFamily | str, *, tuning_tasks: int, **protocol: Any) -> int:
    """Place of the learner that is best on validation tasks; all have the same horizon."""
    first = learners[0]
    tuning = evaluate_all(learners, family, **(protocol | tuning_protocol(first, family, tuning_tasks)))
    return int(np.argmin([scores(result, first, family).mean() for result in tuning]))


def tuning_protocol(learner: MetaLearner, family: TaskFamily | str, tasks: int) -> dict[str, Any]:
    """Arguments of `evaluate` for tuning: at most so many validation tasks, and every step of the horizon."""
    tasks = at_most(tasks, family, "validation")
    return {"split": "validation", "tasks": tasks, "steps": tuple(range(1, horizon(learner) + 1))}


def scores(result: Result, learner: MetaLearner, family: TaskFamily | str) -> NDArray[np.float64]:
    """Mean query score of each task over the steps of the horizon, (tasks,) float64; lower is better."""
    losses = np.stack([result.values(step) for step in range(1, horizon(learner) + 1)])
    mean: NDArray[np.float64] = make_family(family).score(torch.from_numpy(losses)).numpy().mean(axis=0)
    return mean


def horizon(learner: MetaLearner) -> int:
    """Steps of an episode of the learner."""
    return int(learner.arguments.get("horizon", 5))


def slots(learner: MetaLearner) -> int:
    """Number of pool layers that fit into the learner's networks."""
    return int(learner.arguments.get("depth", 2))

"""The standard controls: what a learner must beat before anyone may say that it is the agent that does it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.evaluation.meta_learner import MetaLearner
from gym_reml.evaluation.plans import plan_learner
from gym_reml.evaluation.protocol import TASKS, at_most, evaluate
from gym_reml.evaluation.results import Result
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import Decided, layer_and_step
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

STEP_GRID = (-0.5, 0.0, 0.25, 0.5, 0.75)
"""Where on the logarithmic range constant steps are looked for."""

PROTOCOL = inspect.signature(evaluate)
"""What controls take beside the learner and the family, and in which order."""

SCRATCH_STEPS = (1e-3, 3.0)
"""Range in which the step of training from scratch is looked for."""


def random_layer(learner: MetaLearner, family: TaskFamily | str, *arguments: Any, **named: Any) -> Result:
    """The learner's own decisions when to append and how far to step, but a random layer: any but the initial ones."""
    protocol = _protocol(arguments, named)
    choices, decision = np.array(candidates(learner)), layer_and_step(learner.pool.layers)

    def intervene(decided: Decided, generators: Sequence[np.random.Generator]) -> Decided:
        drawn = choices[[generator.integers(len(choices)) for generator in generators]]
        return decision.changed(decided, layer=np.where(decision.column(decided, "layer") > 0, drawn, 0))

    result = evaluate(learner, family, intervene=intervene, **protocol)
    return replace(result, learner=f"{learner.name}/random_layer")


def constant_step(
    learner: MetaLearner, family: TaskFamily | str, *arguments: Any, tuning_tasks: int = 200, **named: Any
) -> Result:
    """The learner's own layers, but one step size throughout: the best on validation tasks."""
    protocol, decision = _protocol(arguments, named), layer_and_step(learner.pool.layers)

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


def shuffled_observation(learner: MetaLearner, family: TaskFamily | str, *arguments: Any, **named: Any) -> Result:
    """The learner sees another task's observation: that of the task before.

    Raises:
        ValueError: fewer than two tasks.
    """
    protocol = _protocol(arguments, named)
    tasks = protocol.get("tasks")
    tasks = at_most(TASKS, family, protocol.get("split", "test")) if tasks is None else tasks
    if tasks < 2:
        raise ValueError(f"tasks={tasks!r}: to see another task's observation takes at least two")
    result = evaluate(learner, family, blindfold=lambda flat: np.roll(flat, 1, axis=0), **protocol)
    return replace(result, learner=f"{learner.name}/shuffled_observation")


def zeroed_observation(learner: MetaLearner, family: TaskFamily | str, *arguments: Any, **named: Any) -> Result:
    """The learner sees nothing."""
    protocol = _protocol(arguments, named)
    result = evaluate(learner, family, blindfold=np.zeros_like, **protocol)
    return replace(result, learner=f"{learner.name}/zeroed_observation")


def _protocol(arguments: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `evaluate` behind learner and family by name, in its order where they have none."""
    bound = PROTOCOL.bind(None, None, *arguments, **named).arguments
    return {name: value for name, value in bound.items() if name not in ("learner", "family")}


def candidates(learner: MetaLearner) -> list[int]:
    """The pool layers that may be appended: all but those that are there from the start, if there are others."""
    everything = range(1, learner.pool.layers + 1)
    initial = learner.arguments.get("initial_layers", ())
    return [layer for layer in everything if layer not in initial] or list(everything)


def compositions(learner: MetaLearner) -> list[tuple[int, ...]]:
    """All ways to fill the free slots of the learner's networks one after the other."""
    free = slots(learner) - len(learner.arguments.get("initial_layers", ()))
    return list(product(candidates(learner), repeat=free))


def best_composition(
    learner: MetaLearner, family: TaskFamily | str, *arguments: Any, tuning_tasks: int = 100, **named: Any
) -> Result:
    """The one composition and constant step that do best on validation tasks, used for every task."""
    protocol = _protocol(arguments, named)
    name = f"{learner.name}/best_composition"

    def validation_score(layers: Sequence[int], step: float) -> float:
        plan = plan_learner(name, learner.pool, learner.arguments, layers, step)
        tuning = evaluate(plan, family, **(protocol | tuning_protocol(learner, family, tuning_tasks)))
        return float(scores(tuning, learner, family).mean())

    everything = product(compositions(learner), STEP_GRID)
    layers, step = min(everything, key=lambda choice: validation_score(*choice))
    plan = plan_learner(name, learner.pool, learner.arguments, layers, step)
    return replace(evaluate(plan, family, **protocol), notes={"layers": list(layers), "step": step})


def oracle(learner: MetaLearner, family: TaskFamily | str, *arguments: Any, **named: Any) -> Result:
    """For every task the composition and constant step with the best mean query score over the horizon.

    It looks at the query set, so no learner can be expected to reach it.
    """
    protocol = _protocol(arguments, named)
    name, length = f"{learner.name}/oracle", horizon(learner)
    wanted = tuple(sorted({*protocol.get("steps", (0, 1, 5, 10)), *range(1, length + 1)}))
    best: Result | None = None
    best_score: NDArray[np.float64] = np.array([])
    for layers, step in product(compositions(learner), STEP_GRID):
        plan = plan_learner(name, learner.pool, learner.arguments, layers, step)
        result = evaluate(plan, family, **(protocol | {"steps": wanted}))
        score = scores(result, learner, family)
        if best is None:
            best, best_score = result, score
            continue
        better = score < best_score
        best_score = np.where(better, score, best_score)
        metrics = {key: np.where(better, result.metrics[key], values) for key, values in best.metrics.items()}
        assert result.diverged is not None
        assert best.diverged is not None
        best = replace(best, metrics=metrics, diverged=np.where(better, result.diverged, best.diverged))
    assert best is not None
    assert best.diverged is not None
    asked = [best.steps.index(step) for step in sorted(set(protocol.get("steps", (0, 1, 5, 10))))]
    metrics = {key: values[asked] for key, values in best.metrics.items()}
    return replace(
        best,
        steps=tuple(best.steps[i] for i in asked),
        metrics=metrics,
        diverged=best.diverged[asked],
        notes={"return": float(-best_score.mean())},
    )


def from_scratch(
    learner: MetaLearner,
    family: TaskFamily | str,
    *arguments: Any,
    tuning_tasks: int = 200,
    pool_seed: int = 0,
    **named: Any,
) -> Result:
    """Fresh weights of the learner's shape, all present from the start, all trained, the step tuned on validation."""
    protocol = _protocol(arguments, named)
    fresh = LayerPool.random(
        in_features=learner.pool.in_features,
        out_features=learner.pool.out_features,
        width=learner.pool.width,
        layers=slots(learner),
        kind=learner.pool.kind,
        adapt_stem=True,
        constant_outputs=learner.pool.constant_outputs,
        seed=pool_seed,
    )
    low, high = SCRATCH_STEPS
    present = {"initial_layers": list(range(1, slots(learner) + 1)), "min_step": low, "max_step": high}
    tuned, step = tune_step("scratch", fresh, learner.arguments | present, family, tuning_tasks, **protocol)
    return replace(evaluate(tuned, family, **protocol), notes={"step": step})


def tune_step(
    name: str, pool: LayerPool, arguments: dict[str, Any], family: TaskFamily | str, tuning_tasks: int, **protocol: Any
) -> tuple[MetaLearner, float]:
    """The learner that appends nothing and takes the one step size throughout that is best on validation tasks.

    Returns:
        The learner, and the step's place on the logarithmic range, one of 13.
    """

    def learner_with(step: float) -> MetaLearner:
        return plan_learner(name, pool, arguments, (), step)

    def validation_score(step: float) -> float:
        learner = learner_with(step)
        tuning = evaluate(learner, family, **(protocol | tuning_protocol(learner, family, tuning_tasks)))
        return float(scores(tuning, learner, family).mean())

    best = min(np.linspace(-1.0, 1.0, 13).tolist(), key=validation_score)
    return learner_with(best), best


def tuning_protocol(learner: MetaLearner, family: TaskFamily | str, tasks: int) -> dict[str, Any]:
    """How controls are tuned: on validation tasks, all of them where there are fewer, by every step of the horizon."""
    tasks = at_most(tasks, family, "validation")
    return {"split": "validation", "tasks": tasks, "steps": tuple(range(1, horizon(learner) + 1))}


def scores(result: Result, learner: MetaLearner, family: TaskFamily | str) -> NDArray[np.float64]:
    """Mean query score of every task over the steps of the horizon, (tasks,)."""
    losses = np.stack([result.values(step) for step in range(1, horizon(learner) + 1)])
    mean: NDArray[np.float64] = make_family(family).score(torch.from_numpy(losses)).numpy().mean(axis=0)
    return mean


def horizon(learner: MetaLearner) -> int:
    """Steps of the episodes that the learner was made for."""
    return int(learner.arguments.get("horizon", 5))


def slots(learner: MetaLearner) -> int:
    """How many layers its networks hold."""
    return int(learner.arguments.get("depth", 2))

"""The standard controls: what a learner must beat before anyone may say that it is the agent that does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.evaluation import evaluate
from gym_reml.learner import Learner
from gym_reml.pool import LayerPool
from gym_reml.results import Result
from gym_reml.spaces import ActionEncoding, make_encoding
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

STEP_GRID = (-0.5, 0.0, 0.25, 0.5, 0.75)
"""Where on the logarithmic range constant steps are looked for."""

SCRATCH_STEPS = (1e-3, 3.0)
"""Range in which the step of training from scratch is looked for."""


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


def plan_learner(name: str, pool: LayerPool, arguments: dict[str, Any], layers: Sequence[int], step: float) -> Learner:
    """A learner that follows a plan."""
    # Boxes hold any step; finite encodings would round the grid.
    arguments = arguments | {"action": "box"}
    return Learner(name, Plan(make_encoding("box", pool.layers, 1), layers, step), pool, arguments)


def random_layer(learner: Learner, family: TaskFamily | str, **protocol: Any) -> Result:
    """The learner's own decisions when to append and how far to step, but a random layer."""
    layers_of_pool = learner.pool.layers

    def intervene(
        layers: NDArray[np.int64], steps: NDArray[np.float32], generators: Sequence[np.random.Generator]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        drawn = np.array([generator.integers(1, layers_of_pool + 1) for generator in generators])
        return np.where(layers > 0, drawn, 0), steps

    result = evaluate(learner, family, intervene=intervene, **protocol)
    return replace(result, learner=f"{learner.name}/random_layer")


def constant_step(learner: Learner, family: TaskFamily | str, *, tuning_tasks: int = 200, **protocol: Any) -> Result:
    """The learner's own layers, but one step size throughout: the best on validation tasks."""

    def with_step(size: float, **changes: Any) -> Result:
        return evaluate(
            learner,
            family,
            intervene=lambda layers, steps, generators: (layers, np.full_like(steps, size)),
            **(protocol | changes),
        )

    def validation_loss(size: float) -> float:
        return float(
            with_step(size, split="validation", tasks=tuning_tasks, steps=(horizon(learner),)).metrics["loss"].mean()
        )

    best = min(STEP_GRID, key=validation_loss)
    return replace(with_step(best), learner=f"{learner.name}/constant_step", notes={"step": best})


def shuffled_observation(learner: Learner, family: TaskFamily | str, **protocol: Any) -> Result:
    """The learner sees another task's observation: that of the next task."""
    result = evaluate(learner, family, blindfold=lambda flat: np.roll(flat, 1, axis=0), **protocol)
    return replace(result, learner=f"{learner.name}/shuffled_observation")


def zeroed_observation(learner: Learner, family: TaskFamily | str, **protocol: Any) -> Result:
    """The learner sees nothing."""
    result = evaluate(learner, family, blindfold=np.zeros_like, **protocol)
    return replace(result, learner=f"{learner.name}/zeroed_observation")


def compositions(learner: Learner) -> list[tuple[int, ...]]:
    """All ways to fill the free slots of the learner's networks one after the other."""
    free = slots(learner) - len(learner.arguments.get("initial_layers", ()))
    return list(product(range(1, learner.pool.layers + 1), repeat=free))


def best_composition(learner: Learner, family: TaskFamily | str, *, tuning_tasks: int = 100, **protocol: Any) -> Result:
    """The one composition and constant step that do best on validation tasks, used for every task."""
    name = f"{learner.name}/best_composition"
    wanted = {"split": "validation", "tasks": tuning_tasks, "steps": (horizon(learner),)}

    def validation_loss(layers: Sequence[int], step: float) -> float:
        plan = plan_learner(name, learner.pool, learner.arguments, layers, step)
        return float(evaluate(plan, family, **(protocol | wanted)).metrics["loss"].mean())

    everything = product(compositions(learner), STEP_GRID)
    layers, step = min(everything, key=lambda choice: validation_loss(*choice))
    plan = plan_learner(name, learner.pool, learner.arguments, layers, step)
    return replace(evaluate(plan, family, **protocol), notes={"layers": list(layers), "step": step})


def oracle(learner: Learner, family: TaskFamily | str, **protocol: Any) -> Result:
    """For every task the composition and constant step with the best mean query score over the horizon.

    It looks at the query set, so no learner can be expected to reach it.
    """
    name, length = f"{learner.name}/oracle", horizon(learner)
    wanted = tuple(sorted({*protocol.get("steps", (0, 1, 5, 10)), *range(1, length + 1)}))
    the_family = make_family(family)

    def score_of(losses: NDArray[np.float64]) -> NDArray[np.float64]:
        return the_family.score(torch.from_numpy(losses)).numpy()

    best: Result | None = None
    best_score: NDArray[np.float64] = np.array([])
    for layers, step in product(compositions(learner), STEP_GRID):
        plan = plan_learner(name, learner.pool, learner.arguments, layers, step)
        result = evaluate(plan, family, **(protocol | {"steps": wanted}))
        score = np.mean([score_of(result.values(moment)) for moment in range(1, length + 1)], axis=0)
        if best is None:
            best, best_score = result, score
            continue
        better = score < best_score
        best_score = np.where(better, score, best_score)
        metrics = {key: np.where(better, result.metrics[key], values) for key, values in best.metrics.items()}
        best = replace(best, metrics=metrics, diverged=np.where(better, result.diverged, best.diverged))
    assert best is not None
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
    learner: Learner, family: TaskFamily | str, *, tuning_tasks: int = 200, pool_seed: int = 0, **protocol: Any
) -> Result:
    """Fresh weights of the learner's shape, all present from the start, all trained, the step tuned on validation."""
    fresh = LayerPool.random(
        in_features=learner.pool.in_features,
        out_features=learner.pool.out_features,
        width=learner.pool.width,
        layers=slots(learner),
        kind=learner.pool.kind,
        adapt_stem=True,
        seed=pool_seed,
    )
    low, high = SCRATCH_STEPS
    present = {"initial_layers": list(range(1, slots(learner) + 1)), "min_step": low, "max_step": high}
    arguments = learner.arguments | present

    def validation_loss(step: float) -> float:
        wanted = {"split": "validation", "tasks": tuning_tasks, "steps": (horizon(learner),)}
        plan = plan_learner("scratch", fresh, arguments, (), step)
        return float(evaluate(plan, family, **(protocol | wanted)).metrics["loss"].mean())

    step = min(np.linspace(-1.0, 1.0, 13).tolist(), key=validation_loss)
    return replace(
        evaluate(plan_learner("scratch", fresh, arguments, (), step), family, **protocol), notes={"step": step}
    )


def horizon(learner: Learner) -> int:
    """Steps of the episodes that the learner was made for."""
    return int(learner.arguments.get("horizon", 5))


def slots(learner: Learner) -> int:
    """How many layers its networks hold."""
    return int(learner.arguments.get("depth", 2))

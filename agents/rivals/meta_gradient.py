"""Learners that start every task from the same weights: what MAML and its descendants share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from tqdm import tqdm

from gym_reml.evaluation import MetaLearner
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.meta_training import meta_train
from gym_reml.meta_training.outer_loop import Schedule, cosine
from gym_reml.pool import LayerPool

from ..problems.problem import NetworkShape, Problem
from ..runs.command_line import default_is
from .rival import RivalConfig


@dataclass(frozen=True)
class Settings:
    """How initial weights are learned."""

    steps: int
    """inner steps trained for"""
    rule: str = "maml"
    """which meta-gradient: "maml", "fomaml" or "reptile" of `gym_reml.learning` """
    rates: str | None = None
    """granularity of learned step sizes, a name of `gym_reml.pool.rates.RATES`; None for a fixed one"""
    rate: float = 0.01
    """the fixed step size, or the one that learned ones start from"""
    step_weights: tuple[float, ...] | None = None
    """weight of the query loss after each step; None for the last alone"""
    batch: int = 32
    """tasks of a meta-update"""
    learning_rate: float = 3e-3
    """Adam's, for weights and step sizes; of Reptile the outer step size"""

    @property
    def fixed_rate(self) -> float | None:
        """The only step size there is, where none are learned."""
        return self.rate if self.rates is None else None


@dataclass(frozen=True)
class MetaGradientConfig(RivalConfig):
    """The options of methods that learn initial weights, and perhaps step sizes, by the meta-gradient."""

    steps: int = 5
    """inner steps trained for"""
    step_weights: Annotated[tuple[float, ...], default_is("the last step's loss alone")] = ()
    """weight of the query loss after each step"""

    def changed(self, settings: Settings) -> Settings:
        """The settings with these options.

        Raises:
            ValueError: weights that are negative, all 0, or not as many as there are steps.
        """
        return replace(settings, step_weights=checked_weights(self.step_weights, self.steps))


def checked_weights(weights: tuple[float, ...], steps: int) -> tuple[float, ...] | None:
    """The weights of the losses after so many steps; None, for the last alone, if none are given.

    Raises:
        ValueError: weights that are negative, all 0, or not as many as there are steps.
    """
    if weights and (len(weights) != steps or min(weights) < 0 or not max(weights) > 0):
        raise ValueError(f"--step-weights {weights}: must be {steps} numbers from 0, not all of them 0")
    return weights or None


def meta_learn(
    problem: Problem,
    shape: NetworkShape,
    settings: Settings,
    *,
    pool: LayerPool | None = None,
    schedule: Schedule = cosine,
    name: str = "meta-training",
) -> LayerPool:
    """Initial weights, and rates if any, for the problem's tasks.

    Args:
        problem: what to learn.
        shape: of the networks.
        settings: how.
        pool: weights to go on from, changed in place; None starts from fresh ones.
        schedule: of the learning rates and whatever else changes on the way.
        name: what the progress bar says.
    """
    if pool is None:
        pool = shape.fresh(problem)
        if settings.rates is not None:
            pool = pool.with_rates(settings.rates, settings.rate, steps=settings.steps, slots=shape.slots)
    mdp = shape.process(problem, pool, settings.batch, settings.steps, settings.fixed_rate)
    weights = settings.step_weights or (*[0.0] * (settings.steps - 1), 1.0)
    options = LearningOptions(
        learning_rate=settings.learning_rate,
        rates_learning_rate=settings.learning_rate,
        step_weights=weights,
        passes=1,
        seed=problem.seed,
    )
    iterations = max(1, problem.tasks // settings.batch)
    with tqdm(total=iterations, desc=name, unit="update", disable=None) as bar:

        def progress(_: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(query_loss=f"{loss:.3f}", refresh=False)

        learner = PoolLearner(pool, problem.training_family, settings.rule, options)
        meta_train(mdp, learner, None, iterations=iterations, schedule=schedule, progress=progress)
    return pool


def learner_of(problem: Problem, shape: NetworkShape, settings: Settings, name: str) -> MetaLearner:
    """The learner that takes neutral steps from the meta-learned weights."""
    pool = meta_learn(problem, shape, settings, name=name)
    return shape.learner(name, pool, problem.recipe.horizon, settings.fixed_rate)

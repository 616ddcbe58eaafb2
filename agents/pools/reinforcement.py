"""Initial weights of policies by the meta-gradient of the return after one policy-gradient step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.learning import Episodes
from gym_reml.mdp import TrainingMDP
from gym_reml.networks.torch_state import own_state
from gym_reml.pool import LayerPool
from gym_reml.tasks.policies.base import PolicyFamily

from ..problems.problem import Problem, own_shape
from ..problems.recipes import POLICY_BATCH
from .outer_updates import OUTER_UPDATES

INNER_RATES = (0.5, 0.25)
"""Of the first update, which is the one that is trained for, and of all that follow: those of MAML's authors."""


@own_state
def meta_learn_policies(
    problem: Problem,
    iterations: int,
    progress: Callable[[int, float], None],
    surrogate: str = "lvc",
    outer: str = "adam",
) -> LayerPool:
    """The pool of MAML-RL, without rates.

    Args:
        problem: a family of policies, and a recipe of networks that are whole from the start.
        iterations: meta-updates, each on POLICY_BATCH tasks.
        progress: called as progress(iteration, mean loss after the inner step).
        surrogate: the inner loss, of `gym_reml.tasks.policies.surrogates.SURROGATES`.
        outer: of `agents.pools.outer_updates.OUTER_UPDATES`.
    """
    family, shape = policy_family(problem).replace(surrogate=surrogate), own_shape(problem.recipe)
    problem = replace(problem, family=family)
    pool = shape.fresh(family, problem.seed)
    mdp = shape.process(problem, pool, POLICY_BATCH, horizon=1, step=INNER_RATES[0])
    update = OUTER_UPDATES[outer](pool, family, problem.recipe.bootstrap_learning_rate)
    for iteration in range(iterations):
        update(adapt_policies(mdp, INNER_RATES[0]), iteration / iterations)
        progress(iteration, float(mdp.query_loss.mean()))
    return pool


def policy_family(problem: Problem) -> PolicyFamily:
    """The problem's family.

    Raises:
        ValueError: it is not one of policies.
    """
    family = problem.training_family
    if not isinstance(family, PolicyFamily):
        raise ValueError(f"family={family.name!r}: its networks are no policies")
    return family


def adapt_policies(
    mdp: TrainingMDP, rate: float, choose: Callable[[NDArray[np.float32]], NDArray[np.int64]] | None = None
) -> Episodes:
    """Updates every network on its own trajectories, and draws trajectories of the updated ones.

    Args:
        mdp: draws the tasks.
        rate: of the update.
        choose: the layers (n,) to append before it, by the first observations (n, size); none are by default.
    """
    mdp.reset()
    support = mdp.support
    layers = np.zeros(mdp.count, dtype=np.int64) if choose is None else choose(mdp.observe())
    sizes = np.full(mdp.count, rate, dtype=np.float32)
    mdp.train(layers, sizes)
    shown = [torch.from_numpy(numbers).unsqueeze(0).to(mdp.pool.device) for numbers in (layers, sizes)]
    return replace(mdp.episodes(*shown), support=[support])


def with_inner_rates(pool: LayerPool) -> LayerPool:
    """A copy whose neutral steps are the authors' rates."""
    first, *later = INNER_RATES
    rated = pool.with_rates("step", first, steps=len(INNER_RATES))
    for rate in rated.rates.values():
        for step, size in enumerate(later, start=1):
            rate[step] = size
    return rated

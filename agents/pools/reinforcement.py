"""Initial weights of policies by the meta-gradient of the return after one policy-gradient step or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from .outer_updates import OUTER_UPDATES, OuterUpdate
from .rounds import Rounds

INNER_RATES = (0.5, 0.25)
"""Of the first update and of all that follow: those of MAML's authors."""


@own_state
def meta_learn_policies(
    problem: Problem,
    iterations: int,
    progress: Callable[[int, float], None],
    surrogate: str = "lvc",
    outer: str = "adam",
    rounds: Rounds | None = None,
) -> LayerPool:
    """The pool of MAML-RL, without rates.

    Args:
        problem: a family of policies, and a recipe of networks that are whole from the start; it says how many updates
            are trained through, and how fast weights and log deviations learn.
        iterations: meta-updates, each on POLICY_BATCH tasks.
        progress: called as progress(iteration, mean loss after the last inner step).
        surrogate: the inner loss, of `gym_reml.tasks.policies.surrogates.SURROGATES`.
        outer: of `agents.pools.outer_updates.OUTER_UPDATES`.
        rounds: a bootstrap's, whose first ones these are: it keeps checkpoints, and goes on from the newest.
    """
    family, shape = policy_family(problem).replace(surrogate=surrogate), own_shape(problem.recipe)
    problem = replace(problem, family=family)
    recipe, pool = problem.recipe, shape.fresh(problem)
    rates = inner_rates(recipe.bootstrap_updates)
    mdp = shape.process(problem, pool, POLICY_BATCH, horizon=len(rates))
    update = OUTER_UPDATES[outer](
        pool, family, recipe.bootstrap_learning_rate, recipe.bootstrap_constants_learning_rate
    )
    rounds, learner = rounds or Rounds(iterations), PolicyLearner(update, mdp)
    rounds.restore(pool, learner)
    for iteration in range(rounds.done, iterations):
        update(adapt_policies(mdp, rates), iteration / iterations)
        progress(iteration, float(mdp.query_loss.mean()))
        rounds.keep(iteration + 1, pool, learner, None)
    return pool


@dataclass(frozen=True)
class PolicyLearner:
    """What meta-learning of policies goes on from, beside the pool.

    Attributes:
        update: of the pool.
        mdp: draws tasks and trajectories. It begins each meta-update anew, but for its random generators.
    """

    update: OuterUpdate
    mdp: TrainingMDP

    def state(self) -> dict[str, Any]:
        """Tensors and numbers."""
        random = [[generator.bit_generator.state for generator in streams] for streams in self.mdp.streams]
        return {"update": self.update.state(), "random": random}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        for streams, states in zip(self.mdp.streams, state["random"], strict=True):
            for generator, one in zip(streams, states, strict=True):
                generator.bit_generator.state = one
        self.update.load_state(state["update"])


def policy_family(problem: Problem) -> PolicyFamily:
    """The problem's family.

    Raises:
        ValueError: it is not one of policies.
    """
    family = problem.training_family
    if not isinstance(family, PolicyFamily):
        raise ValueError(f"family={family.name!r}: its networks are no policies")
    return family


def inner_rates(updates: int) -> tuple[float, ...]:
    """The authors' rates of so many updates."""
    return tuple(INNER_RATES[min(step, len(INNER_RATES) - 1)] for step in range(updates))


def adapt_policies(
    mdp: TrainingMDP, rates: Sequence[float], choose: Callable[[NDArray[np.float32]], NDArray[np.int64]] | None = None
) -> Episodes:
    """Updates every network on its own trajectories, anew before each update, and then draws others to judge it by.

    Args:
        mdp: draws the tasks.
        rates: of the updates, T of them.
        choose: the layers (n,) to append before the first, by the first observations (n, size); none are by default.

    Returns:
        Episodes of T steps, with the trajectories that each update was made from, and as the only query set those of
        the policies after the last.
    """
    mdp.reset()
    layers = np.zeros((len(rates), mdp.count), dtype=np.int64)
    if choose is not None:
        layers[0] = choose(mdp.observe())
    sizes = np.tile(np.array(rates, dtype=np.float32)[:, None], mdp.count)
    support = []
    for step in range(len(rates)):
        support.append(mdp.support)
        # Updates that were refused did not happen.
        sizes[step, mdp.train(layers[step], sizes[step]).diverged] = 0.0
    shown = [torch.from_numpy(numbers).to(mdp.pool.device) for numbers in (layers, sizes)]
    return replace(mdp.episodes(*shown), support=support)


def with_inner_rates(pool: LayerPool) -> LayerPool:
    """A copy whose neutral steps are the authors' rates."""
    rated = pool.with_rates("step", INNER_RATES[0], steps=len(INNER_RATES))
    for rate in rated.rates.values():
        for step, size in enumerate(INNER_RATES):
            rate[step] = size
    return rated

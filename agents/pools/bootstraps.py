"""The first phase of REML: a pool whose layers are specialists before any agent starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import Clusters, find_clusters, greedy_competition, meta_train
from gym_reml.meta_training.clusters import copy_layer
from gym_reml.meta_training.competition import HIDDEN_SCALE
from gym_reml.meta_training.outer_loop import cosine_schedule
from gym_reml.networks.torch_state import own_state
from gym_reml.pool import LayerPool
from gym_reml.pool.sources import random_pool
from gym_reml.streams import many_streams

from ..problems.problem import TASKS_OF_A_PROBLEM, Problem, own_shape
from ..problems.recipes import CLUSTERING_TASKS, COMPETITION_TASKS, META_BATCH, Recipe
from . import pretraining
from .policy_specialists import specialise_policies
from .reinforcement import meta_learn_policies, with_inner_rates
from .rounds import Rounds

Log = Callable[[int, float], None]
"""Takes the number of a round, and its query loss."""


Specialists = tuple[LayerPool, Clusters | None]
"""A pool, and the clusters of tasks that its layers but the initial ones belong to, if they were made so."""


@own_state
def bootstrap(problem: Problem, log: Log | None = None, folder: Path | None = None) -> Specialists:
    """A pool of specialists for the problem's tasks, as its recipe says.

    Args:
        problem: what to train on.
        log: called after every round.
        folder: where checkpoints are kept; it goes on from the newest; None for nowhere.
    """
    recipe = problem.recipe
    rounds = Rounds(recipe.bootstrap_iterations, folder)
    numbers = count(rounds.done + 1)  # the bar counts nothing where it is not shown
    with tqdm(total=rounds.count, initial=rounds.done, desc="bootstrap", unit="round", disable=None) as bar:

        def progress(_: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(query_loss=f"{loss:.3f}", refresh=False)
            if log is not None:
                log(next(numbers), loss)

        return BOOTSTRAPS[recipe.bootstrap](problem, progress, rounds)


def learning_options(recipe: Recipe, learning_rate: float, seed: int) -> LearningOptions:
    """How the pool learns by the meta-gradient."""
    return LearningOptions(
        learning_rate=learning_rate,
        rates_learning_rate=learning_rate,
        constants_learning_rate=recipe.constants_learning_rate,
        step_weights=recipe.step_weights,
        # Fresh episodes are more informative than replayed ones, and cost little here.
        passes=1,
        seed=seed,
    )


def fresh_pool(problem: Problem, scale: float = 1.0) -> LayerPool:
    """Random layers of the recipe's sizes, on the problem's device."""
    recipe = problem.recipe
    pool = random_pool(
        problem.training_family,
        width=recipe.width,
        layers=recipe.layers,
        kind=recipe.layer_kind,
        scale=scale,
        seed=problem.seed,
    )
    return pool.to(problem.device)


def _compete(problem: Problem, progress: Log, rounds: Rounds) -> Specialists:
    """Layers compete for tasks."""
    recipe, family, pool = problem.recipe, problem.training_family, fresh_pool(problem, HIDDEN_SCALE)
    learner = PoolLearner(pool, family, "maml", LearningOptions(learning_rate=recipe.bootstrap_learning_rate))
    rounds.restore(pool, learner)

    def kept(iteration: int, loss: float) -> None:
        progress(iteration, loss)
        rounds.keep(iteration + 1, pool, learner, None)

    greedy_competition(
        pool,
        family,
        depth=recipe.depth,
        iterations=rounds.count,
        tasks=COMPETITION_TASKS,
        clip=recipe.clip,
        optimizer=recipe.optimizer,
        seed=problem.seed * TASKS_OF_A_PROBLEM,
        learner=learner,
        start=rounds.done,
        progress=kept,
    )
    return pool, None


def recipe_process(problem: Problem, pool: LayerPool, skipped: int = 0) -> TrainingMDP:
    """Draws META_BATCH of the problem's tasks at each reset, for networks of the recipe's sizes.

    Always the same ones, from the first on; those of a bootstrap are not met again behind `skipped` seeds.
    """
    recipe, family = problem.recipe, problem.training_family
    mdp = TrainingMDP(
        META_BATCH,
        family,
        pool,
        Objective(recipe.horizon),
        slots=recipe.depth,
        initial_layers=recipe.initial_layers,
        clip=recipe.clip,
        optimizer=recipe.optimizer,
    )
    seed = problem.seed * TASKS_OF_A_PROBLEM + skipped
    mdp.seed(range(META_BATCH), many_streams(seed, META_BATCH, family.split))
    return mdp


def with_copies(pool: LayerPool, layers: int) -> LayerPool:
    """A copy with so many layers, those that are new being the last one's copies."""
    copy = pool.clone()
    index = torch.arange(layers).clamp_max(pool.layers - 1)
    for name, tensor in copy.parameters.items():
        if name.startswith("layers"):
            copy.parameters[name] = tensor[index]
    return copy


def _specialise(problem: Problem, progress: Log, rounds: Rounds) -> Specialists:
    """MAML with one layer for all tasks, then one layer for each cluster of tasks, starting as copies of it."""
    recipe, family = problem.recipe, problem.training_family
    assert recipe.rates is not None
    # The same initial weights as those of MAML and Meta-SGD.
    start = own_shape(recipe).fresh(problem)
    pool = with_copies(start, recipe.layers).with_rates(
        recipe.rates, recipe.initial_rate, steps=recipe.horizon, slots=recipe.depth
    )
    first = len(recipe.initial_layers) + 1
    mdp = recipe_process(problem, pool)
    plain = rounds.count - round(recipe.clustered_share * rounds.count)
    done = rounds.done
    # Learning rates decrease from 1 to 0: once over both parts, or in each of them if the second has a rate of its own.
    twice = recipe.clustered_learning_rate is not None
    stop, resume = (1.0, 0.0) if twice else (1.0 - recipe.clustered_share,) * 2

    def train(begin: int, end: int, rate: float, shares: tuple[float, float], clusters: Clusters | None) -> None:
        """Takes what is left of the rounds from `begin` to `end`."""
        learner = PoolLearner(pool, family, "maml", learning_options(recipe, rate, problem.seed))
        if done > begin:
            rounds.restore(pool, learner)
            _skip(mdp, done - begin)
        first_share, last_share = shares

        def kept(iteration: int, loss: float) -> None:
            progress(begin + iteration, loss)
            rounds.keep(begin + iteration + 1, pool, learner, clusters)

        meta_train(
            mdp,
            learner,
            lambda seen: np.full(len(seen), first) if clusters is None else clusters.assign(seen) + first,
            start=max(done - begin, 0),
            iterations=end - begin,
            schedule=lambda learner, share: learner.scale_rates(
                cosine_schedule(first_share + share * (last_share - first_share))
            ),
            progress=kept,
        )

    specialists = range(first, pool.layers + 1)
    if done <= plain:
        train(0, plain, recipe.bootstrap_learning_rate, (0.0, stop), None)
        copy_layer(pool, first, specialists)
        clusters = find_clusters(mdp, len(specialists), tasks=CLUSTERING_TASKS, seed=problem.seed)
    else:
        clusters = rounds.clusters()
        _skip(mdp, plain + -(-CLUSTERING_TASKS // META_BATCH))
    rate = recipe.clustered_learning_rate or recipe.bootstrap_learning_rate
    train(plain, rounds.count, rate, (resume, 1.0), clusters)
    return pool, clusters


def _skip(mdp: TrainingMDP, batches: int) -> None:
    """Draws batches of tasks that have been trained on already."""
    for _ in range(batches):
        mdp.draw()


def _adapt_policies(problem: Problem, progress: Log, rounds: Rounds) -> Specialists:
    """MAML-RL, whose rates are the neutral steps."""
    return with_inner_rates(meta_learn_policies(problem, rounds.count, progress, rounds=rounds)), None


def _specialise_policies(problem: Problem, progress: Log, rounds: Rounds) -> Specialists:
    """MAML-RL's policy and layers for kinds of tasks, under the same rates."""
    pool, clusters = specialise_policies(problem, progress, rounds)
    return with_inner_rates(pool), clusters


def _pretrain_policies(problem: Problem, progress: Log, _: Rounds) -> Specialists:
    """The pool of what MAML-RL is compared with, under the same rates."""
    tasks = problem.recipe.bootstrap_tasks
    return with_inner_rates(pretraining.weights(replace(problem, tasks=tasks))), None


BOOTSTRAPS: dict[str, Callable[[Problem, Log, Rounds], Specialists]] = {
    "none": lambda problem, progress, rounds: (fresh_pool(problem), None),
    "competition": _compete,
    "clusters": _specialise,
    "policy_gradient": _adapt_policies,
    "policy_clusters": _specialise_policies,
    "pretraining": _pretrain_policies,
}
"""The ways to make a pool, by the name that recipes use."""

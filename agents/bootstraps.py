"""The first phase of REML: a pool whose layers are specialists before any agent starts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from agents.problem import TASKS_OF_A_PROBLEM, Problem
from agents.recipes import CLUSTERING_TASKS, COMPETITION_TASKS, META_BATCH, Recipe
from gym_reml.bootstrap import HIDDEN_SCALE, greedy_competition
from gym_reml.clusters import Clusters, copy_layer, find_clusters, meta_train
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.mdp import TrainingMDP
from gym_reml.objective import Objective
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams

Log = Callable[[int, float], None]
"""Takes the number of a round, and its query loss."""


Specialists = tuple[LayerPool, Clusters | None]
"""A pool, and the clusters of tasks that its layers but the initial ones belong to, if they were made so."""


def bootstrap(problem: Problem, log: Log | None = None) -> Specialists:
    """A pool of specialists for the problem's tasks, as its recipe says."""
    recipe = problem.recipe
    with tqdm(total=recipe.bootstrap_iterations, desc="bootstrap", unit="round", disable=None) as bar:

        def progress(_: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(query_loss=f"{loss:.3f}", refresh=False)
            if log is not None:
                log(bar.n, loss)

        return BOOTSTRAPS[recipe.bootstrap](problem, progress)


def learning_options(recipe: Recipe, learning_rate: float, seed: int) -> LearningOptions:
    """How the pool learns by the meta-gradient."""
    return LearningOptions(
        learning_rate=learning_rate,
        rates_learning_rate=learning_rate,
        step_weights=recipe.step_weights,
        # Fresh episodes teach more than a second look at old ones, and cost little here.
        passes=1,
        seed=seed,
    )


def fresh_pool(problem: Problem, scale: float = 1.0) -> LayerPool:
    """Random layers as the recipe wants them."""
    recipe, family = problem.recipe, problem.training_family
    return LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        width=recipe.width,
        layers=recipe.layers,
        kind=recipe.layer_kind,
        scale=scale,
        seed=problem.seed,
    )


def _compete(problem: Problem, progress: Log) -> Specialists:
    """Layers compete for tasks."""
    pool = fresh_pool(problem, HIDDEN_SCALE)
    greedy_competition(
        pool,
        problem.training_family,
        depth=problem.recipe.depth,
        iterations=problem.recipe.bootstrap_iterations,
        tasks=COMPETITION_TASKS,
        learning_rate=problem.recipe.bootstrap_learning_rate,
        seed=problem.seed * TASKS_OF_A_PROBLEM,
        progress=progress,
    )
    return pool, None


def recipe_process(problem: Problem, pool: LayerPool, skipped: int = 0) -> TrainingMDP:
    """Draws META_BATCH of the problem's tasks at each reset, for networks as the recipe wants them.

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
    )
    seed = problem.seed * TASKS_OF_A_PROBLEM + skipped
    mdp.seed(range(META_BATCH), many_streams(seed, META_BATCH, family.split))
    return mdp


def _specialise(problem: Problem, progress: Log) -> Specialists:
    """MAML with one layer for all tasks, then one layer for each cluster of tasks, starting as copies of it."""
    recipe, family = problem.recipe, problem.training_family
    assert recipe.rates is not None
    pool = fresh_pool(problem).with_rates(recipe.rates, recipe.initial_rate, steps=recipe.horizon)
    first = len(recipe.initial_layers) + 1
    mdp = recipe_process(problem, pool)
    clustered = round(recipe.clustered_share * recipe.bootstrap_iterations)

    def learner(rate: float) -> PoolLearner:
        return PoolLearner(pool, family, "maml", learning_options(recipe, rate, problem.seed))

    meta_train(
        mdp,
        learner(recipe.bootstrap_learning_rate),
        lambda seen: np.full(len(seen), first),
        iterations=recipe.bootstrap_iterations - clustered,
        progress=progress,
    )
    specialists = range(first, pool.layers + 1)
    copy_layer(pool, first, specialists)
    clusters = find_clusters(mdp, len(specialists), tasks=CLUSTERING_TASKS, seed=problem.seed)
    meta_train(
        mdp,
        learner(recipe.clustered_learning_rate),
        lambda seen: clusters.assign(seen) + first,
        iterations=clustered,
        progress=progress,
    )
    return pool, clusters


BOOTSTRAPS: dict[str, Callable[[Problem, Log], Specialists]] = {
    "none": lambda problem, progress: (fresh_pool(problem), None),
    "competition": _compete,
    "clusters": _specialise,
}
"""The ways to make a pool, by the name that recipes use."""

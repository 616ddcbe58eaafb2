"""MAML-RL's policy, and behind it a layer for each kind of task, clustered by the first trajectories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import Clusters, find_clusters
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams

from ..problems.problem import TASKS_OF_A_PROBLEM, Problem, own_shape
from ..problems.recipes import POLICY_BATCH, POLICY_CLUSTERING_TASKS
from .outer_updates import Ascent
from .reinforcement import PolicyLearner, adapt_policies, inner_rates, meta_learn_policies, policy_family
from .rounds import Rounds

SMALL = 0.1
"""Scale of fresh residual layers: nearly the identity, so that what MAML-RL has learned is what they start from."""


def specialise_policies(
    problem: Problem, progress: Callable[[int, float], None], rounds: Rounds | None = None
) -> tuple[LayerPool, Clusters]:
    """The pool, without rates, and the clusters that its layers but the initial ones belong to.

    Args:
        problem: a family of policies, and a recipe of residual layers with one place more than initial ones.
        progress: called as progress(iteration, mean loss after the last inner step).
        rounds: of the bootstrap, which keeps checkpoints, and goes on from the newest; None for neither.
    """
    recipe, family = problem.recipe, policy_family(problem)
    present = len(recipe.initial_layers)
    clustered = round(recipe.clustered_share * recipe.bootstrap_iterations)
    whole = replace(problem, recipe=replace(recipe, depth=present))
    rounds = rounds or Rounds(recipe.bootstrap_iterations)
    before, done = recipe.bootstrap_iterations - clustered, rounds.done
    start = own_shape(whole.recipe).fresh(whole)
    if done <= before:
        start = meta_learn_policies(whole, before, progress, rounds=rounds)
    pool = with_fresh_layers(start, recipe.layers, problem.seed)
    rates = inner_rates(recipe.bootstrap_updates)
    mdp = TrainingMDP(
        POLICY_BATCH,
        family,
        pool,
        Objective(len(rates)),
        slots=recipe.depth,
        initial_layers=recipe.initial_layers,
        clip=recipe.clip,
        optimizer=recipe.optimizer,
    )
    # Behind the tasks that the policy has met.
    seed = problem.seed * TASKS_OF_A_PROBLEM + POLICY_BATCH
    mdp.seed(range(POLICY_BATCH), many_streams(seed, POLICY_BATCH, family.split))
    if done <= before:
        clusters = find_clusters(mdp, recipe.layers - present, tasks=POLICY_CLUSTERING_TASKS, seed=problem.seed)
    else:
        clusters = rounds.clusters()
    update = Ascent(pool, family, recipe.bootstrap_learning_rate, recipe.bootstrap_constants_learning_rate)
    learner = PolicyLearner(update, mdp)
    if done > before:
        rounds.restore(pool, learner)
    for iteration in range(max(done - before, 0), clustered):
        update(adapt_policies(mdp, rates, lambda seen: clusters.assign(seen) + present + 1), iteration / clustered)
        progress(iteration, float(mdp.query_loss.mean()))
        rounds.keep(before + iteration + 1, pool, learner, clusters)
    return pool, clusters


def with_fresh_layers(pool: LayerPool, layers: int, seed: int) -> LayerPool:
    """A copy with so many layers, those that are new being fresh and small."""
    copy, generator = pool.clone(), torch.Generator().manual_seed(seed)
    present = copy.parameters["layers.matrix"]
    bound = SMALL / np.sqrt(pool.width)
    fresh = torch.empty((layers - pool.layers, *present.shape[1:]), dtype=torch.float32)
    fresh.uniform_(-bound, bound, generator=generator)
    copy.parameters["layers.matrix"] = torch.cat([present, fresh.to(present)])
    return copy

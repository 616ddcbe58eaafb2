"""Weights for all tasks at once."""

from __future__ import annotations

import torch
from tqdm import tqdm

from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.meta_training.outer_loop import cosine
from gym_reml.networks.torch_state import own_state
from gym_reml.pool import LayerPool

from ..problems.problem import Problem, usual_shape

BATCH = 32


@own_state
def weights(problem: Problem) -> LayerPool:
    """Weights with the least query loss after no step."""
    shape = usual_shape(problem)
    pool = shape.fresh(problem, adapt_stem=True)
    mdp = shape.process(problem, pool, BATCH, horizon=1)
    learner = PoolLearner(pool, problem.training_family, "maml", LearningOptions(learning_rate=3e-3, seed=problem.seed))
    layers, stay = torch.zeros((1, BATCH), dtype=torch.int64), torch.zeros((1, BATCH), dtype=torch.float32)
    iterations = max(1, problem.tasks // BATCH)
    for iteration in tqdm(range(iterations), desc="pretrained", unit="update", disable=None):
        cosine(learner, iteration / iterations)
        mdp.reset()
        learner.update(mdp.episodes(layers, stay))
    return pool

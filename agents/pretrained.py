"""Pretraining on all tasks at once, then finetuning: `python -m agents.pretrained`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tqdm import tqdm

from gym_reml.clusters import cosine
from gym_reml.learner import Learner
from gym_reml.learning import Episodes, LearningOptions, PoolLearner
from gym_reml.pool import LayerPool
from gym_reml.torch_state import own_state

from .command import run_command
from .problem import Problem, usual_shape
from .rival import RivalConfig, tuned_learner

BATCH = 32
FINETUNING_STEPS = (1e-4, 1.0)


@dataclass(frozen=True)
class Config(RivalConfig):
    """One network for all tasks, trained to do well before any adaptation, then finetuned with the best step size."""


def train(problem: Problem) -> Learner:
    """Weights with the least query loss after no step; the step size of finetuning is tuned on validation tasks."""
    shape, pool = usual_shape(problem), weights(problem)
    return tuned_learner("pretrained", pool, problem, shape, FINETUNING_STEPS)


@own_state
def weights(problem: Problem) -> LayerPool:
    """Weights with the least query loss after no step."""
    shape = usual_shape(problem)
    pool = shape.fresh(problem.training_family, problem.seed, adapt_stem=True)
    mdp = shape.process(problem, pool, BATCH, horizon=1)
    learner = PoolLearner(pool, problem.training_family, "maml", LearningOptions(learning_rate=3e-3, seed=problem.seed))
    layers, stay = torch.zeros((1, BATCH), dtype=torch.int64), torch.zeros((1, BATCH), dtype=torch.float32)
    iterations = max(1, problem.tasks // BATCH)
    for iteration in tqdm(range(iterations), desc="pretrained", unit="update", disable=None):
        cosine(learner, iteration / iterations)
        mdp.reset()
        learner.update(Episodes([mdp.support], [mdp.query], layers, stay, mdp.initial_layers, mdp.slots))
    return pool


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)

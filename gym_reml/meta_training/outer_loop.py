"""MAML's outer loop: trains a pool by the exact meta-gradient on new tasks (Finn et al. 2017, arXiv:1703.03400)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.training import TrainingMDP
from gym_reml.networks.torch_state import own_state

Choice = Callable[[NDArray[np.float32]], NDArray[np.int64]]
"""From initial observations (n, size) to the pool layers to append in the first step, (n,)."""

Progress = Callable[[int, float], None]
"""Called with the iteration and its weighted query loss."""

Schedule = Callable[[PoolLearner, float], None]
"""Adjusts a pool learner before each update, given the fraction of updates done, in [0, 1)."""


def cosine_schedule(done: float) -> float:
    """Factor that falls from 1 to 0 along a half cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def cosine(learner: PoolLearner, done: float) -> None:
    """Schedule: learning rates fall to 0 along a half cosine."""
    learner.scale_rates(cosine_schedule(done))


@own_state
def meta_train(
    mdp: TrainingMDP,
    learner: PoolLearner,
    choose: Choice | None,
    *,
    iterations: int,
    start: int = 0,
    schedule: Schedule = cosine,
    progress: Progress | None = None,
) -> None:
    """Trains the pool by the exact meta-gradient on new tasks.

    The first step of an episode appends one layer; all step sizes are the middle of the log range. If every network
    has the same layers this is MAML; with learned rates it is Meta-SGD (Li et al. 2017, arXiv:1707.09835) or LSLR of
    MAML++ (Antoniou et al. 2019, arXiv:1810.09502).

    Args:
        mdp: process that draws the tasks; must be seeded.
        learner: updates the pool.
        choose: chooses the layer to append; None for networks that are complete from the start.
        iterations: number of meta-updates, each on a batch of `mdp.count` tasks.
        start: number of those that were done before, by a learner whose state this one has.
        schedule: called before each update, to set learning rates or other options.
        progress: called as progress(iteration, weighted query loss).
    """
    horizon, device = mdp.objective.horizon, mdp.pool.device
    step_size = float(mdp.step_sizes(np.zeros(1, dtype=np.float32))[0])
    step_sizes = torch.full((horizon, mdp.count), step_size, dtype=torch.float32, device=device)
    for iteration in range(start, iterations):
        schedule(learner, iteration / iterations)
        layers = torch.zeros((horizon, mdp.count), dtype=torch.int64, device=device)
        if choose is None:
            mdp.draw()
        else:
            mdp.reset()
            layers[0] = torch.from_numpy(choose(mdp.observe())).to(device)
        loss = learner.update(mdp.episodes(layers, step_sizes))
        if progress is not None:
            progress(iteration, loss)
    learner.scale_rates(1.0)

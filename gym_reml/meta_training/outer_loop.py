"""MAML's outer loop: a pool trained by the exact meta-gradient on fresh tasks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.training import TrainingMDP
from gym_reml.networks.torch_state import own_state

Choice = Callable[[NDArray[np.float32]], NDArray[np.int64]]
"""From first observations (n, size) to the pool layers to append in the first step (n,)."""

Progress = Callable[[int, float], None]

Schedule = Callable[[PoolLearner, float], None]
"""Sets a learner up for its next update, by the share of them that is done, in [0, 1)."""


def cosine_schedule(done: float) -> float:
    """From 1 to 0 along a cosine (Loshchilov and Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def cosine(learner: PoolLearner, done: float) -> None:
    """Learning rates that fall to zero along a cosine."""
    learner.scale_rates(cosine_schedule(done))


def no_layer(observations: NDArray[np.float32]) -> NDArray[np.int64]:
    """The choice of networks that are whole from the start: no layer."""
    return np.zeros(len(observations), dtype=np.int64)


@own_state
def meta_train(
    mdp: TrainingMDP,
    learner: PoolLearner,
    choose: Choice,
    *,
    iterations: int,
    schedule: Schedule = cosine,
    progress: Progress | None = None,
) -> None:
    """Trains the pool by the exact meta-gradient on fresh tasks: one layer in the first step, all steps neutral.

    With every layer present or chosen alike this is MAML; with learned rates Meta-SGD or MAML++'s LSLR.

    Args:
        mdp: gives the tasks and what is seen of them; must be seeded.
        learner: changes the pool.
        choose: the layer to append.
        iterations: meta-updates, each on a batch of `mdp.count` tasks.
        schedule: of the learning rates, and of whatever else changes on the way.
        progress: called as progress(iteration, weighted query loss).
    """
    horizon, device = mdp.objective.horizon, mdp.pool.device
    neutral = float(mdp.step_sizes(np.zeros(1, dtype=np.float32))[0])
    sizes = torch.full((horizon, mdp.count), neutral, dtype=torch.float32, device=device)
    for iteration in range(iterations):
        schedule(learner, iteration / iterations)
        mdp.reset()
        layers = torch.zeros((horizon, mdp.count), dtype=torch.int64, device=device)
        layers[0] = torch.from_numpy(choose(mdp.observe())).to(device)
        loss = learner.update(Episodes([mdp.support], [mdp.query], layers, sizes, mdp.initial_layers, mdp.slots))
        if progress is not None:
            progress(iteration, loss)
    learner.scale_rates(1.0)

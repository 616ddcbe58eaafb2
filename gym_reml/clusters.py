"""Specialists where competition fails (images: winners would be picked on noise): one layer for each kind of task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.learning import Episodes, PoolLearner
from gym_reml.mdp import TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.torch_state import own_state

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11

Choice = Callable[[NDArray[np.float32]], NDArray[np.int64]]
"""From first observations (n, size) to the pool layers to append in the first step (n,)."""

Progress = Callable[[int, float], None]

Schedule = Callable[[PoolLearner, float], None]
"""Sets a learner up for its next update, by the share of them that is done, in [0, 1)."""


def falling(done: float) -> float:
    """From 1 to 0 along a cosine (Loshchilov and Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def cosine(learner: PoolLearner, done: float) -> None:
    """Learning rates that fall to zero along a cosine."""
    learner.scale_rates(falling(done))


def nothing(observations: NDArray[np.float32]) -> NDArray[np.int64]:
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


@dataclass(frozen=True)
class Clusters:
    """Kinds of tasks, told apart by their first observation.

    Attributes:
        mean, deviation: (size,), by which observations are standardised.
        centres: (clusters, size), in standardised observations.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    centres: NDArray[np.float64]

    def assign(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """The cluster of each observation (n, size): (n,) from 0."""
        return nearest((observations - self.mean) / self.deviation, self.centres)

    def state(self) -> dict[str, Tensor]:
        """The clusters as plain data that `torch.load(weights_only=True)` accepts."""
        return {name: torch.from_numpy(numbers.copy()) for name, numbers in vars(self).items()}

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """The clusters that `state` describes.

        Raises:
            ValueError: not such a state, or numbers that do not fit together or are not finite.
        """
        names = [part.name for part in fields(cls)]
        if not isinstance(state, dict) or set(state) != set(names) or not all(map(torch.is_tensor, state.values())):
            raise ValueError(f"state: must hold the tensors {', '.join(names)}")
        arrays = {name: state[name].numpy().astype(np.float64) for name in names}
        mean, deviation, centres = arrays.values()
        fit = mean.ndim == 1 and mean.shape == deviation.shape and centres.ndim == 2 and centres.shape[1:] == mean.shape
        if not fit or not all(np.isfinite(numbers).all() for numbers in arrays.values()) or (deviation <= 0).any():
            raise ValueError("state: its numbers do not fit together, or are not finite")
        return cls(**arrays)


def find_clusters(mdp: TrainingMDP, clusters: int, *, tasks: int = 1000, seed: int = 0) -> Clusters:
    """k-means (Lloyd 1982, k-means++ starts) over the first observations of `tasks` tasks."""
    rounds = -(-tasks // mdp.count)
    seen = []
    for _ in range(rounds):
        mdp.reset()
        seen.append(mdp.observe())
    observations = np.concatenate(seen).astype(np.float64)
    mean, deviation = observations.mean(axis=0), observations.std(axis=0) + 1e-3
    points = (observations - mean) / deviation
    generator = np.random.default_rng(seed)
    attempts = [_lloyd(points, clusters, generator) for _ in range(5)]
    return Clusters(mean, deviation, min(attempts, key=lambda attempt: attempt[1])[0])


def nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the centre nearest to each point."""
    return _squared_distances(points, centres).argmin(axis=1)


def _squared_distances(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((points[:, None] - centres[None]) ** 2).sum(axis=2)


def _lloyd(
    points: NDArray[np.float64], clusters: int, generator: np.random.Generator, rounds: int = 50
) -> tuple[NDArray[np.float64], float]:
    """Centres and the sum of squared distances to them."""
    centres = points[[generator.integers(len(points))]]
    while len(centres) < clusters:
        distances = _squared_distances(points, centres).min(axis=1)
        total = distances.sum()
        chance = distances / total if total > 0 else np.full(len(points), 1.0 / len(points))
        centres = np.concatenate([centres, points[[generator.choice(len(points), p=chance)]]])
    for _ in range(rounds):
        members = nearest(points, centres)
        moved = np.stack(
            [points[members == k].mean(axis=0) if (members == k).any() else centres[k] for k in range(clusters)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres, float(_squared_distances(points, centres).min(axis=1).sum())


@torch.inference_mode()
def copy_layer(pool: LayerPool, source: int, targets: Iterable[int]) -> None:
    """Writes pool layer `source` and its rates over the layers `targets`, so that specialists start as equals."""
    for name, tensor in pool.trainable().items():
        kind, _, parameter = name.rpartition(".")
        if parameter.startswith("layers"):
            per_step = pool.granularity == "step" if kind == "rate" else tensor.ndim > 3
            for target in targets:
                tensor.select(int(per_step), target - 1).copy_(tensor.select(int(per_step), source - 1))
    if pool.statistics:
        for target in targets:
            pool.statistics["layers"][:, target - 1] = pool.statistics["layers"][:, source - 1]

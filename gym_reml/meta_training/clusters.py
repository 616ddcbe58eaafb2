"""Clusters of tasks, to specialise one layer for each.

An alternative to `greedy_competition` for families such as images, where differences between layers' losses are noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11


@dataclass(frozen=True)
class Clusters:
    """Clusters of tasks by their initial observations.

    Attributes:
        mean, deviation: (size,), mean and standard deviation used to standardise observations.
        centres: (clusters, size), centres of standardised observations.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    centres: NDArray[np.float64]

    def assign(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Numbers (n,), from 0, of the clusters of observations (n, size)."""
        return nearest((observations - self.mean) / self.deviation, self.centres)

    def state(self) -> dict[str, Tensor]:
        """The clusters as a dict of tensors that `torch.load(weights_only=True)` accepts."""
        return {name: torch.from_numpy(numbers.copy()) for name, numbers in vars(self).items()}

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """The clusters described by `state`, as returned by `state()`.

        Raises:
            ValueError: not a state of clusters, or arrays whose shapes are inconsistent or that are not finite.
        """
        names = [part.name for part in fields(cls)]
        if not isinstance(state, dict) or set(state) != set(names) or not all(map(torch.is_tensor, state.values())):
            raise ValueError(f"state: must hold the tensors {', '.join(names)}")
        arrays = {name: state[name].numpy().astype(np.float64) for name in names}
        mean, deviation, centres = arrays.values()
        fit = mean.ndim == 1 and mean.shape == deviation.shape and centres.ndim == 2 and centres.shape[1:] == mean.shape
        if not fit or not all(np.isfinite(numbers).all() for numbers in arrays.values()) or (deviation <= 0).any():
            raise ValueError("state: its arrays have inconsistent shapes, or are not finite")
        return cls(**arrays)


def find_clusters(mdp: TrainingMDP, clusters: int, *, tasks: int = 1000, seed: int = 0) -> Clusters:
    """Clusters initial observations by k-means (Lloyd 1982), initialised by k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        mdp: process whose tasks are clustered; must be seeded, and is reset.
        clusters: number of clusters.
        tasks: number of tasks to observe, rounded up to a multiple of `mdp.count`.
        seed: seed of the initial centres.
    """
    rounds = -(-tasks // mdp.count)
    initial_observations = []
    for _ in range(rounds):
        mdp.reset()
        initial_observations.append(mdp.observe())
    observations = np.concatenate(initial_observations).astype(np.float64)
    mean, deviation = observations.mean(axis=0), observations.std(axis=0) + 1e-3
    points = (observations - mean) / deviation
    generator = np.random.default_rng(seed)
    candidates = [_lloyd(points, clusters, generator) for _ in range(5)]
    return Clusters(mean, deviation, min(candidates, key=lambda candidate: candidate[1])[0])


def nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number (n,) of the centre (clusters, size) nearest to each point (n, size)."""
    return _squared_distances(points, centres).argmin(axis=1)


def _squared_distances(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((points[:, None] - centres[None]) ** 2).sum(axis=2)


def _lloyd(
    points: NDArray[np.float64], clusters: int, generator: np.random.Generator, rounds: int = 50
) -> tuple[NDArray[np.float64], float]:
    """Centres, and the sum of squared distances of the points to the nearest ones."""
    centres = points[[generator.integers(len(points))]]
    while len(centres) < clusters:
        distances = _squared_distances(points, centres).min(axis=1)
        total = distances.sum()
        probabilities = distances / total if total > 0 else np.full(len(points), 1.0 / len(points))
        centres = np.concatenate([centres, points[[generator.choice(len(points), p=probabilities)]]])
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
    """Overwrites pool layers `targets` and their rates by layer `source`, in place; layers are numbered from 1."""
    for name, tensor in pool.trainable().items():
        parameter = name.removeprefix("rate.")
        if parameter.startswith("layers."):
            if name != parameter and pool.granularity == "weight_step":
                continue  # of the slot, whichever layer stands there
            per_step = pool.granularity == "step" if name != parameter else tensor.ndim > 3
            for target in targets:
                tensor.select(int(per_step), target - 1).copy_(tensor.select(int(per_step), source - 1))
    if pool.statistics:
        for target in targets:
            pool.statistics["layers"][:, target - 1] = pool.statistics["layers"][:, source - 1]

"""The posterior over random tabular processes, given the observed transitions and rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Belief:
    """Counts of the observed transitions and rewards of each row's process, and the posterior under the tasks' prior.

    Next states have the prior Dirichlet(1, ..., 1); mean rewards Normal(1, 1), and rewards have noise of variance 1.

    Attributes:
        arrivals: (n, states, actions, states) float64, how often a state was followed by another.
        visits: (n, states, actions) float64, how often an action was rewarded.
        rewards: (n, states, actions) float64, sums of the rewards.
    """

    arrivals: NDArray[np.float64]
    visits: NDArray[np.float64]
    rewards: NDArray[np.float64]

    @classmethod
    def empty(cls, rows: int, states: int, actions: int) -> Belief:
        """Nothing seen yet."""
        shape = (rows, states, actions)
        return cls(np.zeros((*shape, states)), np.zeros(shape), np.zeros(shape))

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Nothing seen by those rows."""
        for values in (self.arrivals, self.visits, self.rewards):
            values[rows] = 0.0

    def mean_transitions(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(len(rows), states, actions, states) the posterior means."""
        weights = 1.0 + self.arrivals[rows]
        return weights / weights.sum(axis=-1, keepdims=True)

    def mean_rewards(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(len(rows), states, actions) the posterior means of the mean rewards."""
        return (1.0 + self.rewards[rows]) / (1.0 + self.visits[rows])

    def sample(self, row: int, stream: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One process drawn from a row's posterior: (states, actions, states) and (states, actions)."""
        # Gamma variables divided by their sum are Dirichlet.
        weights = stream.standard_gamma(1.0 + self.arrivals[row])
        precision = 1.0 + self.visits[row]
        means = (1.0 + self.rewards[row]) / precision
        rewards = means + stream.standard_normal(means.shape) / np.sqrt(precision)
        return weights / weights.sum(axis=-1, keepdims=True), rewards

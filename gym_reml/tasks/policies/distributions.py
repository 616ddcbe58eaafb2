"""Distributions over actions that a policy network's outputs parametrise: Gaussian or categorical."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_LOG_DEVIATION = math.log(1e-3)
"""Lower bound of log standard deviations."""


@dataclass(frozen=True)
class Gaussian:
    """Diagonal Gaussian; outputs are means, then log standard deviations.

    Attributes:
        size: dimension of an action.
    """

    size: int

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return 2 * self.size

    @property
    def constant_outputs(self) -> int:
        """Number of outputs, the last ones, that do not depend on the network's input: the log deviations."""
        return self.size

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations, each (..., size), from outputs (..., 2 size)."""
        mean, log_deviation = outputs.split(self.size, dim=-1)
        return mean, log_deviation.clamp_min(LEAST_LOG_DEVIATION)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Samples of actions (..., size) from standard normal noise (..., size)."""
        mean, log_deviation = self.split(outputs)
        return mean + log_deviation.exp() * noise

    def log_probability(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Log densities (...) of actions (..., size)."""
        mean, log_deviation = self.split(outputs)
        unit = (actions - mean) * (-log_deviation).exp()
        return -(0.5 * unit.square() + log_deviation + 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence KL(old || new) of the distributions with these outputs, (...)."""
        (mean, log_deviation), (new_mean, new_log_deviation) = self.split(old), self.split(new)
        spread = (2.0 * log_deviation).exp() + (mean - new_mean).square()
        terms = new_log_deviation - log_deviation + 0.5 * spread * (-2.0 * new_log_deviation).exp() - 0.5
        return terms.sum(dim=-1)

    def deviation(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Actions minus their mean under the policy, (..., size)."""
        return actions - self.split(outputs)[0]


@dataclass(frozen=True)
class Categorical:
    """Categorical distribution; outputs are logits, actions are one-hot.

    Attributes:
        size: number of actions.
    """

    size: int

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return self.size

    @property
    def constant_outputs(self) -> int:
        """0: all outputs depend on the network's input."""
        return 0

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Samples of one-hot actions (..., size) from standard normal noise (..., size), by the Gumbel-max trick."""
        uniform = torch.special.ndtr(noise.double()).clamp(1e-12, 1.0 - 1e-12)
        chosen = (outputs - (-uniform.log()).log()).argmax(dim=-1)
        return torch.nn.functional.one_hot(chosen, self.size).to(outputs.dtype)

    def log_probability(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Log probabilities (...) of one-hot actions (..., size)."""
        return (outputs.log_softmax(dim=-1) * actions).sum(dim=-1)

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence KL(old || new) of the distributions with these outputs, (...)."""
        before = old.log_softmax(dim=-1)
        return (before.exp() * (before - new.log_softmax(dim=-1))).sum(dim=-1)

    def deviation(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Actions minus their mean under the policy, (..., size)."""
        return actions - outputs.softmax(dim=-1)


Distribution = Gaussian | Categorical

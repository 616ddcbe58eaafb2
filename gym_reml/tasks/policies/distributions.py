"""What a sub-network's outputs mean where it is a policy: a Gaussian or a categorical distribution over actions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_LOG_DEVIATION = math.log(1e-3)


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians; outputs are means, then log standard deviations.

    Attributes:
        size: numbers of an action.
    """

    size: int

    @property
    def outputs(self) -> int:
        """Outputs that a network needs."""
        return 2 * self.size

    @property
    def constant_outputs(self) -> int:
        """Of these, how many (the last) do not depend on the network's input."""
        return self.size

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log deviations, each (..., size)."""
        mean, log_deviation = outputs.split(self.size, dim=-1)
        return mean, log_deviation.clamp_min(LEAST_LOG_DEVIATION)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Actions (..., size) out of standard normal numbers of that shape."""
        mean, log_deviation = self.split(outputs)
        return mean + log_deviation.exp() * noise

    def log_probability(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Log density of actions (..., size): (...)."""
        mean, log_deviation = self.split(outputs)
        unit = (actions - mean) * (-log_deviation).exp()
        return -(0.5 * unit.square() + log_deviation + 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence from the old outputs' distribution to the new ones', (...)."""
        (mean, log_deviation), (new_mean, new_log_deviation) = self.split(old), self.split(new)
        spread = (2.0 * log_deviation).exp() + (mean - new_mean).square()
        terms = new_log_deviation - log_deviation + 0.5 * spread * (-2.0 * new_log_deviation).exp() - 0.5
        return terms.sum(dim=-1)

    def drift(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """How far actions lie from what was to be expected, (..., size)."""
        return actions - self.split(outputs)[0]


@dataclass(frozen=True)
class Categorical:
    """One of `size` actions; outputs are logits, actions one-hot.

    Attributes:
        size: how many actions there are.
    """

    size: int

    @property
    def outputs(self) -> int:
        """Outputs that a network needs."""
        return self.size

    @property
    def constant_outputs(self) -> int:
        """None of them is independent of the network's input."""
        return 0

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """One-hot actions (..., size) out of standard normal numbers of that shape, by the Gumbel trick."""
        uniform = torch.special.ndtr(noise.double()).clamp(1e-12, 1.0 - 1e-12)
        chosen = (outputs - (-uniform.log()).log()).argmax(dim=-1)
        return torch.nn.functional.one_hot(chosen, self.size).to(outputs.dtype)

    def log_probability(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Log probability of one-hot actions (..., size): (...)."""
        return (outputs.log_softmax(dim=-1) * actions).sum(dim=-1)

    def divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence from the old outputs' distribution to the new ones', (...)."""
        before = old.log_softmax(dim=-1)
        return (before.exp() * (before - new.log_softmax(dim=-1))).sum(dim=-1)

    def drift(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """How far actions lie from what was to be expected, (..., size)."""
        return actions - outputs.softmax(dim=-1)


Distribution = Gaussian | Categorical

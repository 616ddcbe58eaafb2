"""Families whose networks are policies: data are trajectories, losses are negative returns.

See Finn et al. 2017, arXiv:1703.03400, eq. 4.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gym_reml.checks import check_integer, is_number
from gym_reml.tasks.base import Batch, Forward, Generators, TaskFamily, Tasks
from gym_reml.tasks.policies.advantages import linear_baseline, normalised, returns_to_go
from gym_reml.tasks.policies.distributions import Distribution
from gym_reml.tasks.policies.surrogates import SURROGATES

CAP_IN_SCALES = 250.0
"""Family's cap in units of `return_scale`: steps to a lower mean return than minus the cap are refused."""


@dataclass
class Trajectories:
    """Trajectories of policies on n tasks.

    Attributes:
        observations: (n, trajectories, steps, size) float32.
        actions: (n, trajectories, steps, action size) float32, as sampled from the policy, before clipping.
        rewards: (n, trajectories, steps) float32, 0 after the end.
        active: (n, trajectories, steps) bool, False after the end.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    active: Tensor


@dataclass(frozen=True)
class PolicyFamily(TaskFamily):
    """Base of the families of reinforcement-learning tasks.

    Support and query sets are new trajectories of the current policy at every step. The value of the loss is minus the
    mean return; its gradient with respect to the outputs is that of a policy-gradient surrogate with normalised
    advantages, one of `gym_reml.tasks.policies.surrogates.SURROGATES`.

    Attributes:
        shots: number of trajectories of the support set.
        queries: number of trajectories of the query set.
        steps: largest number of steps of a trajectory.
        discount: discount factor of the advantages; losses and metrics use undiscounted returns.
        surrogate: "lvc", "dice" or "first_order".
        return_scale: typical magnitude of returns, by which scores and observations divide them.

    Raises:
        ValueError: a number of steps below 1, a discount outside [0, 1], an unknown surrogate, or a scale that is not
            positive.
    """

    fixed_data: ClassVar[bool] = False

    shots: int | tuple[int, int] = 20
    queries: int = 20
    steps: int = 100
    discount: float = 0.99
    surrogate: str = "lvc"
    return_scale: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("steps", self.steps)
        if not is_number(self.discount) or not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount={self.discount!r}: must be a number from 0 to 1")
        if not isinstance(self.surrogate, str) or self.surrogate not in SURROGATES:
            raise ValueError(f"surrogate={self.surrogate!r}: must be one of {', '.join(map(repr, SURROGATES))}")
        if not is_number(self.return_scale) or not 0.0 < self.return_scale < math.inf:
            raise ValueError(f"return_scale={self.return_scale!r}: must be a positive number")
        # Returns have the magnitude of their scale in every environment.
        object.__setattr__(self, "cap", CAP_IN_SCALES * self.return_scale)

    @property
    @abstractmethod
    def distribution(self) -> Distribution:
        """The distribution over actions that outputs parametrise."""

    @property
    def out_features(self) -> int:
        return self.distribution.outputs

    @property
    def constant_outputs(self) -> int:
        return self.distribution.constant_outputs

    @abstractmethod
    def rollout(self, tasks: Tasks, forward: Forward, generators: Generators, count: int) -> Trajectories:
        """Samples `count` trajectories of the current policy for each task."""

    def noise(self, generators: Generators, count: int) -> Tensor:
        """Standard normal noise for the actions of `count` trajectories per row, (n, count, steps, action size)."""
        shape = (count, self.steps, self.distribution.size)
        drawn = np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])
        return torch.from_numpy(drawn)

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self.batch(self.rollout(tasks, forward, generators, self.most_shots))

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self.batch(self.rollout(tasks, forward, generators, self.queries))

    def batch(self, trajectories: Trajectories) -> Batch:
        """Trajectories as a batch whose points are their steps; those after the end have weight 0."""
        sums = returns_to_go(trajectories.rewards, self.discount)
        active = trajectories.active
        advantage = sums - linear_baseline(trajectories.observations, sums, active)
        weight = active.to(sums.dtype) / active.sum(dim=(1, 2), keepdim=True).clamp_min(1)
        extras = {
            "weighted_advantage": normalised(advantage, active) * weight,
            "weight": weight,
            "returns": trajectories.rewards.sum(dim=2),
        }
        return Batch(trajectories.observations.flatten(1, 2), trajectories.actions.flatten(1, 2), extras)

    def log_probability(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Log probabilities of the actions taken under the policy with these outputs, (n, trajectories, steps)."""
        by_point = self.distribution.log_probability(outputs, batch.targets)
        return by_point.reshape(batch.extras["weight"].shape)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Minus the mean return, (n,); its gradient with respect to the outputs is the surrogate's."""
        value = -batch.extras["returns"].mean(dim=1)
        if not (torch.is_grad_enabled() and outputs.requires_grad):
            return value
        log_probability = self.log_probability(outputs, batch)
        surrogate = SURROGATES[self.surrogate](log_probability, batch.extras["weighted_advantage"])
        return value + (surrogate - surrogate.detach())

    def score(self, loss: Tensor) -> Tensor:
        """Losses over `return_scale`; log1p does not apply, as losses of policies may be negative."""
        return loss / self.return_scale

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        return {"return": -loss}

    @property
    def signal_size(self) -> int:
        return 2 + self.distribution.size

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean and standard deviation of returns, and the advantage-weighted deviation of actions from their mean.

        The result is (n, 2 + action size).

        Advantages are normalised, so gradients do not show how good a policy is; returns do.
        """
        returns = batch.extras["returns"] / self.return_scale
        deviation = self.distribution.deviation(outputs, batch.targets)
        better = (deviation * batch.extras["weighted_advantage"].flatten(1).unsqueeze(2)).sum(dim=1)
        spread = returns.std(dim=1, keepdim=True, correction=0)
        return torch.cat([returns.mean(dim=1, keepdim=True), spread, better], dim=1)

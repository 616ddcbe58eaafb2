"""Families whose networks are policies: data are trajectories, the loss minus the return (Finn et al. 2017, eq. 4)."""

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
"""A step after which the support set's returns are worse than minus so many times their scale is refused."""


@dataclass
class Trajectories:
    """What n tasks' policies lived through.

    Attributes:
        observations: (n, trajectories, steps, size) float32.
        actions: (n, trajectories, steps, action size) float32, as the policy chose them.
        rewards: (n, trajectories, steps) float32, 0 after the end.
        lived: (n, trajectories, steps) bool, False after the end.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    lived: Tensor


@dataclass(frozen=True)
class PolicyFamily(TaskFamily):
    """Base of the families of reinforcement-learning tasks.

    Support and query are fresh trajectories of the present policy at every step. The loss *is* minus the mean return;
    its derivative by the outputs is that of a policy-gradient surrogate with normalised advantages, one of
    `gym_reml.tasks.policies.surrogates.SURROGATES`.

    Attributes:
        shots: trajectories of the support set.
        queries: trajectories of the query set.
        steps: of the longest trajectory.
        discount: of the advantages; losses and metrics count plain sums of rewards.
        surrogate: "lvc", "dice" or "first_order".
        return_scale: what `score` and observations divide returns by.

    Raises:
        ValueError: a number of steps below 1, a discount outside [0, 1], an unknown surrogate or a scale that is not
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
        # Returns have the size that their scale says, whatever the environment.
        object.__setattr__(self, "cap", CAP_IN_SCALES * self.return_scale)

    @property
    @abstractmethod
    def distribution(self) -> Distribution:
        """What outputs mean."""

    @property
    def out_features(self) -> int:
        return self.distribution.outputs

    @property
    def constant_outputs(self) -> int:
        return self.distribution.constant_outputs

    @abstractmethod
    def rollout(self, tasks: Tasks, forward: Forward, generators: Generators, count: int) -> Trajectories:
        """Lets the present policies act, `count` trajectories for each task."""

    def noise(self, generators: Generators, count: int) -> Tensor:
        """Standard normal numbers for the actions of `count` trajectories a row, (n, count, steps, action size)."""
        shape = (count, self.steps, self.distribution.size)
        drawn = np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])
        return torch.from_numpy(drawn)

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self.batch(self.rollout(tasks, forward, generators, self.most_shots))

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self.batch(self.rollout(tasks, forward, generators, self.queries))

    def batch(self, lived: Trajectories) -> Batch:
        """Trajectories as data: points are all their steps; those after the end weigh nothing."""
        sums = returns_to_go(lived.rewards, self.discount)
        advantage = sums - linear_baseline(lived.observations, sums, lived.lived)
        weight = lived.lived.to(sums.dtype) / lived.lived.sum(dim=(1, 2), keepdim=True).clamp_min(1)
        extras = {
            "weighted_advantage": normalised(advantage, lived.lived) * weight,
            "weight": weight,
            "returns": lived.rewards.sum(dim=2),
        }
        return Batch(lived.observations.flatten(1, 2), lived.actions.flatten(1, 2), extras)

    def log_probability(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of the actions taken, under the policy of these outputs, (n, trajectories, steps)."""
        by_point = self.distribution.log_probability(outputs, batch.targets)
        return by_point.reshape(batch.extras["weight"].shape)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Minus the mean return, (n,); the derivative by the outputs is the surrogate's."""
        value = -batch.extras["returns"].mean(dim=1)
        if not (torch.is_grad_enabled() and outputs.requires_grad):
            return value
        log_probability = self.log_probability(outputs, batch)
        surrogate = SURROGATES[self.surrogate](log_probability, batch.extras["weighted_advantage"])
        return value + (surrogate - surrogate.detach())

    def score(self, loss: Tensor) -> Tensor:
        """Minus the return over a fixed scale: losses of policies have either sign."""
        return loss / self.return_scale

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        return {"return": -loss}

    @property
    def signal_size(self) -> int:
        return 2 + self.distribution.size

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean and deviation of the return, and where better actions lay than expected ones: (n, 2 + action size).

        Advantages are normalised, so gradients do not show how far a policy is from good; returns do.
        """
        returns = batch.extras["returns"] / self.return_scale
        drift = self.distribution.drift(outputs, batch.targets)
        better = (drift * batch.extras["weighted_advantage"].flatten(1).unsqueeze(2)).sum(dim=1)
        spread = returns.std(dim=1, keepdim=True, correction=0)
        return torch.cat([returns.mean(dim=1, keepdim=True), spread, better], dim=1)

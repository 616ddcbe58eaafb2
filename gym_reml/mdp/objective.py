"""The meta-RL objective: the return of an episode with horizon H and burn-in K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import check_integer, is_integer

REWARDS = ("performance", "improvement")
FEEDBACKS = ("support", "query")

Array = NDArray[Any]


@dataclass(frozen=True)
class Budget:
    """Number of units (steps or inner episodes) that an agent has for a task, and how many of them are not rewarded.

    The meta-RL objective (Beck et al. 2023, "A Survey of Meta-Reinforcement Learning", arXiv:2301.08028) is the sum of
    the returns of units K to H - 1, counted from 0. K = 0 measures fast adaptation, K = H - 1 final performance.

    Attributes:
        horizon: H, number of units: steps of an episode, or inner episodes of a trial.
        burn_in: K, number of units at the beginning whose rewards are 0.

    Raises:
        ValueError: a horizon below 1, or a burn-in outside [0, H).
    """

    unit: ClassVar[str] = "horizon"
    """Name of the horizon's argument in error messages."""

    horizon: int
    burn_in: int = 0

    def __post_init__(self) -> None:
        check_integer(self.unit, self.horizon)
        if not is_integer(self.burn_in) or not 0 <= self.burn_in < self.horizon:
            raise ValueError(f"burn_in={self.burn_in!r}: must be an integer from 0 to below {self.unit}={self.horizon}")

    def counted(self, reward: Array, clock: Array) -> Array:
        """Rewards (n,) of the units number `clock` (n,), counted from 1, with those of the burn-in set to 0."""
        return np.where(clock > self.burn_in, reward, 0.0) if self.burn_in else reward


@dataclass(frozen=True)
class TrialBudget(Budget):
    """Budget of a trial: `horizon` inner episodes on one task."""

    unit: ClassVar[str] = "episodes"


@dataclass(frozen=True)
class Objective(Budget):
    """Rewards of an episode of H steps, of which the first K are not rewarded.

    Attributes:
        horizon: H, number of steps of an episode.
        burn_in: K, number of steps at the beginning whose rewards are 0.
        reward: "performance", -score / H at every step (the return is minus the area under the adaptation curve), or
            "improvement", the decrease of the score (without burn-in the return is the total decrease).
        feedback: "query" or "support", the set whose loss is scored.

    Raises:
        ValueError: an unknown reward or feedback, or see `Budget`.
    """

    reward: str = "performance"
    feedback: str = "query"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward not in REWARDS:
            raise ValueError(f"reward={self.reward!r}: must be one of {', '.join(map(repr, REWARDS))}")
        if self.feedback not in FEEDBACKS:
            raise ValueError(f"feedback={self.feedback!r}: must be one of {', '.join(map(repr, FEEDBACKS))}")

    def terms(self, before: Array, after: Array, clock: Array, diverged: Array) -> dict[str, Array]:
        """Terms of the reward by name, each (n,).

        Args:
            before, after: (n,), scores before and after the step.
            clock: (n,), number of steps taken, this one included.
            diverged: (n,) bool, rows that get the penalty for divergence, -1 / H.
        """
        reward = -after / self.horizon if self.reward == "performance" else before - after
        penalty = np.where(diverged, -1.0 / self.horizon, 0.0) if np.count_nonzero(diverged) else np.zeros(len(clock))
        return {self.reward: self.counted(reward, clock), "divergence": self.counted(penalty, clock)}

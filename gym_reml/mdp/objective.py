"""The meta-RL objective: the return of an episode, with horizon H and burn-in K."""

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
    """How long an agent has with a task, and from when on that counts.

    The meta-RL objective (Beck et al. 2023, "A Survey of Meta-Reinforcement Learning") is the sum of the returns of the
    units of one task's budget, from the K-th (counted from 0) to the last of H. K = 0 is fast adaptation, K = H - 1
    final performance.

    Attributes:
        horizon: H, units of the budget: steps of an episode, or inner episodes of a trial.
        burn_in: K, units at the beginning that do not count.
    """

    unit: ClassVar[str] = "horizon"
    """The argument that gives the horizon, in errors."""

    horizon: int
    burn_in: int = 0

    def __post_init__(self) -> None:
        check_integer(self.unit, self.horizon)
        if not is_integer(self.burn_in) or not 0 <= self.burn_in < self.horizon:
            raise ValueError(f"burn_in={self.burn_in!r}: must be an integer from 0 to below {self.unit}={self.horizon}")

    def counted(self, reward: Array, clock: Array) -> Array:
        """Rewards (n,) of unit number `clock` (n,), counted from 1, as far as they count: 0 during the burn-in."""
        return np.where(clock > self.burn_in, reward, 0.0) if self.burn_in else reward


@dataclass(frozen=True)
class TrialBudget(Budget):
    """Inner episodes with one task."""

    unit: ClassVar[str] = "episodes"


@dataclass(frozen=True)
class Objective(Budget):
    """The return of an episode: the meta-RL objective over H steps, of which the first K do not count.

    Attributes:
        horizon: H, steps of an episode.
        burn_in: K, steps at the beginning that do not count.
        reward: "performance" is -score / H at every step (the return is minus the area under the adaptation curve),
            "improvement" is the decrease of the score (the return is the final gain).
        feedback: whether the score is of the loss on the query or on the support set.
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
        """The reward's terms by name, each (n,): scores before and after the step that ended at `clock`."""
        reward = -after / self.horizon if self.reward == "performance" else before - after
        penalty = np.where(diverged, -1.0 / self.horizon, 0.0)
        return {self.reward: self.counted(reward, clock), "divergence": self.counted(penalty, clock)}

"""What an episode is worth: the meta-RL objective, with horizon H and burn-in K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REWARDS = ("performance", "improvement")
FEEDBACKS = ("support", "query")

Array = NDArray[Any]


@dataclass(frozen=True)
class Objective:
    """What an episode is worth: the meta-RL objective over H steps, of which the first K earn nothing.

    Attributes:
        horizon: H, steps of an episode.
        burn_in: K, steps that earn nothing.
        reward: "performance" pays -score / H at every step (the return is the area under the adaptation curve),
            "improvement" pays the fall of the score (the return is the final gain).
        feedback: whether the score is of the loss on the query or on the support set.
    """

    horizon: int
    burn_in: int = 0
    reward: str = "performance"
    feedback: str = "query"

    def __post_init__(self) -> None:
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, int | np.integer) or self.horizon < 1:
            raise ValueError(f"horizon={self.horizon!r}: must be a positive integer")
        if not isinstance(self.burn_in, int | np.integer) or not 0 <= self.burn_in < self.horizon:
            raise ValueError(f"burn_in={self.burn_in!r}: must be an integer from 0 to below horizon={self.horizon}")
        if self.reward not in REWARDS:
            raise ValueError(f"reward={self.reward!r}: must be one of {', '.join(map(repr, REWARDS))}")
        if self.feedback not in FEEDBACKS:
            raise ValueError(f"feedback={self.feedback!r}: must be one of {', '.join(map(repr, FEEDBACKS))}")

    def terms(self, before: Array, after: Array, clock: Array, diverged: Array) -> dict[str, Array]:
        """The reward's terms by name, each (n,): scores before and after the step that ended at `clock`."""
        earned = -after / self.horizon if self.reward == "performance" else before - after
        penalty = np.where(diverged, -1.0 / self.horizon, 0.0)
        if self.burn_in:
            counts = clock > self.burn_in
            earned, penalty = np.where(counts, earned, 0.0), np.where(counts, penalty, 0.0)
        return {self.reward: earned, "divergence": penalty}

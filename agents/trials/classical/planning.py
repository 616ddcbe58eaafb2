"""Value iteration over a finite horizon, for many small Markov decision processes at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def action_values(transitions: NDArray[np.float64], rewards: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """The value of each action with some steps left, by backward induction (Bellman 1957).

    Args:
        transitions: (n, states, actions, states) probabilities of the next state.
        rewards: (n, states, actions) mean rewards.
        horizon: steps of an episode.

    Returns:
        (horizon, n, states, actions): by the number of steps taken before.

    Raises:
        ValueError: a horizon below 1, or shapes that do not fit each other.
    """
    if horizon < 1:
        raise ValueError(f"horizon={horizon!r}: must be a positive integer")
    count, states, actions = rewards.shape
    if transitions.shape != (count, states, actions, states):
        raise ValueError(f"transitions: have shape {transitions.shape}, must be {(count, states, actions, states)}")
    # One batched product of matrices per step, with the actions of all states stacked.
    flat = transitions.reshape(count, states * actions, states)
    values = np.empty((horizon, count, states, actions))
    values[-1] = rewards
    for step in range(horizon - 2, -1, -1):
        ahead = flat @ values[step + 1].max(axis=2)[:, :, None]
        values[step] = rewards + ahead.reshape(rewards.shape)
    return values

"""Features for the memory of RL²: pairs of state and action beside the reward that followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from gym_reml.evaluation import Policy

STACKED = 2
"""Observations that `PairFeatures` reads: the last and the present one, as `VecFrameStack` puts them together."""


class PairFeatures(BaseFeaturesExtractor):
    """Two observations in a row of a process with discrete states and actions, and the pair that lies between them.

    An observation of a trial holds the previous action and its reward, but not the state it was taken in: that is in
    the observation before. Here both are there, and after them the pair of that state and action, one-hot, and the same
    times the reward, which is what the memory has to keep of each pair.
    """

    def __init__(self, observation_space: spaces.Box, states: int, actions: int) -> None:
        """For observations (2 * (states + actions + 2),) in the order of `docs/trials.md`, the last one first.

        Raises:
            ValueError: observations of another size.
        """
        size = STACKED * (states + actions + 2)
        if observation_space.shape != (size,):
            raise ValueError(
                f"observation_space={observation_space}: must have shape ({size},) for {states} states and "
                f"{actions} actions"
            )
        super().__init__(observation_space, size + 2 * states * actions)
        self.states, self.actions = states, actions

    def forward(self, observations: Tensor) -> Tensor:
        """(n, size) to (n, size + 2 * states * actions). Where a trial begins, nothing lies before: the pair is 0."""
        last, present = observations.chunk(STACKED, dim=1)
        state = last[:, : self.states]
        action, reward = present[:, self.states : self.states + self.actions], present[:, -2:-1]
        pair = (state[:, :, None] * action[:, None, :]).flatten(1)
        return torch.cat([observations, pair, pair * reward], dim=1)


class Stacked:
    """A policy trained on two observations in a row, for those who hand it one at a time.

    Does for `evaluate_trials` what `VecFrameStack` does in training: a trial's first observation is preceded by zeros.
    """

    def __init__(self, policy: Policy) -> None:
        """Hands on to that policy."""
        self.policy = policy

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for observations (n, size), and the state to hand in next time."""
        last, memory = (np.zeros_like(observation), None) if state is None else state
        if episode_start is not None:
            last = np.where(np.asarray(episode_start)[:, None], np.float32(0.0), last)
        both = np.concatenate([last, observation], axis=1)
        actions, memory = self.policy.predict(both, memory, episode_start, deterministic)
        return actions, (np.array(observation), memory)

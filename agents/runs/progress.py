"""A callback of Stable-Baselines3 that shows progress and keeps checkpoints, for every run of an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

CHECKPOINTS = 10
"""Checkpoints of a long run: few, as rows begin new episodes with each."""

LEAST = 20_000
"""Environment steps between two checkpoints at least, so that short runs, which are soon made again, have none."""


class Moments:
    """When a run keeps its checkpoints: by its steps alone, as what follows one depends on it being kept."""

    def __init__(self, total: int) -> None:
        """Takes the environment steps of the run."""
        self.between = max(LEAST, total // CHECKPOINTS)
        self._next = 0

    def start(self, done: int) -> None:
        """The run begins, or goes on, after so many steps."""
        self._next = (done // self.between + 1) * self.between

    def due(self, done: int) -> bool:
        """Whether a checkpoint is kept after so many steps; asked between rollouts."""
        if done < self._next:
            return False
        self.start(done)
        return True


class Progress(BaseCallback):
    """Moves a progress bar with every step, and keeps a checkpoint from time to time, between rollouts."""

    def __init__(self, bar: Any, keep: Callable[[], None]) -> None:
        """Takes a bar of tqdm, in environment steps, and what keeps a checkpoint."""
        super().__init__()
        self.bar, self.keep = bar, keep
        self._moments = Moments(bar.total)

    def _on_training_start(self) -> None:
        self._moments.start(self.num_timesteps)

    def _on_rollout_start(self) -> None:
        if self._moments.due(self.num_timesteps):
            self.keep()

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        episodes = self.model.ep_info_buffer
        if episodes:
            self.bar.set_postfix(mean_return=f"{np.mean([episode['r'] for episode in episodes]):.3f}", refresh=False)
        return True

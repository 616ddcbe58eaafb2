"""A callback of Stable-Baselines3 that shows progress and keeps checkpoints, for every run of an agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

CHECKPOINT_SECONDS = 15.0
"""Time between checkpoints."""


class Progress(BaseCallback):
    """Moves a progress bar with every step, and keeps a checkpoint from time to time, between rollouts."""

    def __init__(self, bar: Any, keep: Callable[[], None]) -> None:
        """Takes a bar of tqdm, in environment steps, and what keeps a checkpoint."""
        super().__init__()
        self.bar, self.keep = bar, keep
        self._kept = time.monotonic()

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._kept > CHECKPOINT_SECONDS:
            self.keep()
            self._kept = time.monotonic()

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        episodes = self.model.ep_info_buffer
        if episodes:
            self.bar.set_postfix(mean_return=f"{np.mean([episode['r'] for episode in episodes]):.3f}", refresh=False)
        return True

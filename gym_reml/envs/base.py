"""The single face of the training process: a Gymnasium `Env` over one row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.arguments import check_render_mode
from gym_reml.envs.setup import Setup
from gym_reml.envs.single import RowEnv
from gym_reml.envs.training import TrainingFace
from gym_reml.envs.training import observe as observe


class TrainingEnv(TrainingFace, RowEnv):
    """One episode at a time.

    `reset(options={"pool": "initial"})` writes the pool's initial weights back (only where it learns).

    Attributes:
        mdp: the process, of one row.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    def __init__(self, setup: Setup, render_mode: str | None = None) -> None:
        """Wraps a set-up process of one row."""
        check_render_mode(render_mode)
        self._open(setup, render_mode)
        self.action_space = setup.encoding.space
        self.observation_space = setup.space
        self.render_mode = render_mode

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (choices,) bool."""
        mask: NDArray[np.bool_] = self.action_encoding.mask(self.mdp.allowed())[0]
        return mask

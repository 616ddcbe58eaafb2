"""The vector face of the training process: a Gymnasium `VectorEnv` over n rows that are computed together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.face import for_rows
from gym_reml.envs.rows import RowsVectorEnv
from gym_reml.envs.setup import Setup
from gym_reml.envs.training import TrainingFace, warn_of_cuts
from gym_reml.envs.versions import AutoresetMode


class TrainingVectorEnv(TrainingFace, RowsVectorEnv):
    """n episodes side by side; reset with seed s it equals n single environments reset with s, s + 1, ...

    `reset(options={"pool": "initial"})` writes the pool's initial weights back (only where it learns),
    `reset(options={"task": ...})` starts on a given task.

    Attributes:
        mdp: the process, of `num_envs` rows.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    def __init__(
        self,
        setup: Setup,
        num_envs: int,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Wraps a set-up process of `num_envs` rows."""
        self._open(setup, render_mode)
        self._configure(setup.encoding.space, setup.space, autoreset_mode, render_mode, max_episode_steps)
        limit, horizon = self.max_episode_steps, self.mdp.objective.horizon
        if self.mdp.learner is not None and limit is not None and limit < horizon:
            warn_of_cuts(limit, horizon)
            self._finished = True

    @for_rows(takes_row=False)
    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (num_envs, choices) bool."""
        return self.action_encoding.mask(self.mdp.allowed())

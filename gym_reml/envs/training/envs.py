"""The environments of the training process: a Gymnasium `Env` over one row, a `VectorEnv` over n."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.common.arguments import check_render_mode
from gym_reml.envs.common.single import ProcessEnv
from gym_reml.envs.common.vector import ProcessVectorEnv
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.common.view import for_rows
from gym_reml.envs.training.setup import Setup
from gym_reml.envs.training.view import TrainingView, warn_of_cuts
from gym_reml.envs.training.view import observe as observe


class TrainingEnv(TrainingView, ProcessEnv):
    """One episode at a time.

    `reset(options={"pool": "initial"})` writes the pool's initial weights back (only where it learns),
    `reset(options={"task": ...})` starts on a given task.

    Attributes:
        mdp: the process, of one row.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    _learning: weakref.WeakSet[TrainingEnv] = weakref.WeakSet()
    """Those of this process that learn and have not been closed."""

    def __init__(self, setup: Setup, render_mode: str | None = None) -> None:
        """Wraps a set-up process of one row."""
        check_render_mode(render_mode)
        self._open(setup, render_mode)
        self.action_space = setup.encoding.space
        self.observation_space = setup.space
        self.render_mode = render_mode
        self._told_of_others = False
        if self.mdp.learner is not None:
            # Not one that was played before: this one may be about to take its place.
            self._tell_of_others([env for env in self._learning if not env._started])
            self._learning.add(self)

    def close(self) -> None:
        """Counts no longer among those that learn."""
        self._learning.discard(self)
        super().close()

    def _restart(self, rows: NDArray[np.int64] | None, given: Any = None) -> dict[str, Any]:
        before, info = self._finished, super()._restart(rows, given)
        if self._finished and not before and not self._told_of_others:
            self._tell_of_others([env for env in self._learning if env is not self and env._finished])
        return info

    def _tell_of_others(self, others: list[TrainingEnv]) -> None:
        """Warns if others learn what this one learns."""
        alike = [env for env in others if _learn_alike(env, self)]
        if not alike:
            return
        for env in (self, *alike):
            env._told_of_others = True
        warnings.warn(
            "learn: several single environments in this process learn, each a pool of its own, or one pool with "
            "optimizers of their own, and each sees its own episodes only. Use gym.make_vec with its native vector "
            "environment, or gym_reml.sb3.make_vec_env, whose rows share one; close() environments that are done.",
            stacklevel=3,
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (choices,) bool."""
        mask: NDArray[np.bool_] = self.action_encoding.mask(self.mdp.allowed(), 1)[0]
        return mask


def _learn_alike(one: TrainingEnv, other: TrainingEnv) -> bool:
    """Whether they share a pool, or each made one although they learn the same: what is meant to be a vector."""
    if one.pool is other.pool:
        return True
    found = ((env.pool_source, env.mdp.learner and env.mdp.learner.rule, type(env.family)) for env in (one, other))
    return one.pool_source != "given" and len(set(found)) == 1


class TrainingVectorEnv(TrainingView, ProcessVectorEnv):
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
        return self.action_encoding.mask(self.mdp.allowed(), self.num_envs)

"""The environments of the training process: a Gymnasium `Env` over one row, a `VectorEnv` over n."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.common.single import ProcessEnv
from gym_reml.envs.common.vector import ProcessVectorEnv
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.common.view import for_rows
from gym_reml.envs.training.setup import Setup
from gym_reml.envs.training.view import TrainingView, warn_of_cuts


class TrainingEnv(TrainingView, ProcessEnv):
    """One episode at a time.

    `reset(options={"pool": "initial"})` writes the pool's initial weights back (only where it learns),
    `reset(options={"task": ...})` starts on a given task.

    Attributes:
        mdp: the process, of one row.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    _learners: weakref.WeakSet[TrainingEnv] = weakref.WeakSet()
    """The environments in this Python process whose pools learn and that have not been closed."""

    def __init__(self, setup: Setup, render_mode: str | None = None) -> None:
        """Takes a set-up process of one row."""
        super().__init__(
            setup.mdp,
            setup.encoding.space,
            observation_space=setup.space,
            split=setup.mdp.family.split,
            render_mode=render_mode,
        )
        self._set_up(setup)
        self._warned_of_others = False
        if self.mdp.learner is not None:
            # Not of one that was played before: this one may be about to take its place.
            self._warn_of_others([env for env in self._learners if not env._started])
            self._learners.add(self)

    def close(self) -> None:
        """Counts no longer among those that learn."""
        self._learners.discard(self)
        super().close()

    def _restart(self, rows: NDArray[np.int64] | None, given: Any = None) -> dict[str, Any]:
        before, info = self._episode_finished, super()._restart(rows, given)
        if self._episode_finished and not before and not self._warned_of_others:
            self._warn_of_others([env for env in self._learners if env is not self and env._episode_finished])
        return info

    def _warn_of_others(self, others: list[TrainingEnv]) -> None:
        """Warns if others learn what this one learns."""
        alike = [env for env in others if _learn_alike(env, self)]
        if not alike:
            return
        for env in (self, *alike):
            env._warned_of_others = True
        warnings.warn(
            "learn: several single environments in this process learn, each a pool of its own, or one pool with "
            "optimizers of their own, and each sees its own episodes only. Use gym.make_vec with its native vector "
            "environment, or gym_reml.sb3.make_vec_env, whose rows share one; close() environments that are done.",
            stacklevel=4,
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (choices,) bool."""
        mask: NDArray[np.bool_] = self.action_encoding.mask(self.mdp.allowed(), 1)[0]
        return mask


def _learn_alike(one: TrainingEnv, other: TrainingEnv) -> bool:
    """Whether they share a pool, or each made one of its own by the same rule for the same family."""
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
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Takes a set-up process of n rows.

        Args:
            setup: the process, and what belongs to it.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: after how many steps episodes are truncated, as `gym.make` has it; None for never.

        Raises:
            ValueError: a mode that does not exist, or a number of steps that makes no sense.
        """
        super().__init__(
            setup.mdp,
            setup.encoding.space,
            observation_space=setup.space,
            split=setup.mdp.family.split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
        )
        self._set_up(setup)
        limit, horizon = self.max_episode_steps, self.mdp.objective.horizon
        if self.mdp.learner is not None and limit is not None and limit < horizon:
            warn_of_cuts(limit, horizon)
            self._episode_finished = True

    @for_rows(takes_row=False)
    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices are open, for MaskablePPO: (num_envs, choices) bool."""
        return self.action_encoding.mask(self.mdp.allowed(), self.num_envs)

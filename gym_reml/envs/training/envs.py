"""Environments that build and train networks: a Gymnasium `Env` over one row, and a `VectorEnv` over n."""

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
from gym_reml.envs.training.view import TrainingView, warn_of_truncation


class TrainingEnv(TrainingView, ProcessEnv):
    """A single environment that builds and trains networks.

    `reset(options={"pool": "initial"})` restores the initial weights of a pool that learns;
    `reset(options={"task": ...})` starts on a given task.

    Attributes:
        mdp: the process, of one row.
        action_encoding: of the actions, with `decode`, `encode` and `mask`.
    """

    _learning_envs: weakref.WeakSet[TrainingEnv] = weakref.WeakSet()
    """The environments in this Python process whose pools learn and that are not closed."""

    def __init__(self, setup: Setup, render_mode: str | None = None) -> None:
        """Takes the result of `make_setup` for one row."""
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
            # Environments that have been reset are left out: this one may be about to replace them.
            self._warn_of_others([env for env in self._learning_envs if not env._started])
            self._learning_envs.add(self)

    def close(self) -> None:
        """Closes the environment, and removes it from those that are checked for separate pools."""
        self._learning_envs.discard(self)
        super().close()

    def _restart(self, rows: NDArray[np.int64] | None, given: Any = None) -> dict[str, Any]:
        before, info = self._episode_finished, super()._restart(rows, given)
        if self._episode_finished and not before and not self._warned_of_others:
            self._warn_of_others([env for env in self._learning_envs if env is not self and env._episode_finished])
        return info

    def _warn_of_others(self, others: list[TrainingEnv]) -> None:
        """Warns if others train the same pool, or a pool of the same kind."""
        similar = [env for env in others if _train_similar_pools(env, self)]
        if not similar:
            return
        for env in (self, *similar):
            env._warned_of_others = True
        warnings.warn(
            "learn: several single environments in this process train pools, each a separate pool, or one pool with "
            "separate optimizers, and each from its own episodes only. Use gym.make_vec with its native vector "
            "environment, or gym_reml.sb3.make_vec_env, whose rows share one; close() environments after use.",
            stacklevel=4,
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """The mask of allowed actions in the format of MaskablePPO, (options,) bool."""
        mask: NDArray[np.bool_] = self.action_encoding.mask(self.mdp.allowed(), 1)[0]
        return mask


def _train_similar_pools(one: TrainingEnv, other: TrainingEnv) -> bool:
    """Whether both train the same pool, or pools of the same source and family by the same rule."""
    if one.pool is other.pool:
        return True
    kinds = ((env.pool_source, env.mdp.learner and env.mdp.learner.rule, type(env.family)) for env in (one, other))
    return one.pool_source != "given" and len(set(kinds)) == 1


class TrainingVectorEnv(TrainingView, ProcessVectorEnv):
    """n parallel environments; reset with seed s it equals n single ones reset with seeds s, s + 1, ...

    `reset(options={"pool": "initial"})` restores the initial weights of a pool that learns;
    `reset(options={"task": ...})` starts on a given task.

    Attributes:
        mdp: the process, of `num_envs` rows.
        action_encoding: of the actions, with `decode`, `encode` and `mask`.
    """

    def __init__(
        self,
        setup: Setup,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the result of `make_setup` for n rows.

        Args:
            setup: the process, with encoding and observation space.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: number of steps after which episodes are truncated; None for no limit.
            output: "numpy" or "torch", see `ProcessVectorEnv`.

        Raises:
            ValueError: an unknown mode or output, or an invalid number of steps.
        """
        super().__init__(
            setup.mdp,
            setup.encoding.space,
            observation_space=setup.space,
            split=setup.mdp.family.split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            output=output,
        )
        self._set_up(setup)
        limit, horizon = self.max_episode_steps, self.mdp.objective.horizon
        if self.mdp.learner is not None and limit is not None and limit < horizon:
            warn_of_truncation(limit, horizon)
            self._episode_finished = True

    def set_output(self, output: str) -> None:
        super().set_output(output)
        self.mdp.tensors = self.output == "torch"

    @for_rows(takes_row=False)
    def action_masks(self) -> NDArray[np.bool_]:
        """The masks of allowed actions in the format of MaskablePPO, (num_envs, options) bool."""
        return self.action_encoding.mask(self.mdp.allowed(), self.num_envs)

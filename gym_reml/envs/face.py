"""What both faces of the process share: the single `Env` and the `VectorEnv`."""

from __future__ import annotations

from typing import Any

from gym_reml.envs.setup import Setup
from gym_reml.mdp import TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.spaces import ActionEncoding
from gym_reml.tasks.base import TaskFamily


class Face:
    """A view of a set-up process.

    Attributes:
        mdp: the process.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    mdp: TrainingMDP
    action_encoding: ActionEncoding

    def _open(self, setup: Setup) -> None:
        """Takes the process over; a pool that learns is remembered as it was."""
        self.mdp, self.action_encoding = setup.mdp, setup.encoding
        self._pool_source = setup.pool_source
        self._initial_pool = setup.mdp.pool.clone() if setup.mdp.learner is not None else None

    @property
    def pool(self) -> LayerPool:
        """The pool in use: the very object that was given, if one was."""
        return self.mdp.pool

    @property
    def family(self) -> TaskFamily:
        """The task family in use."""
        return self.mdp.family

    @property
    def learning(self) -> bool:
        """Whether finished episodes change the pool at present. Can be switched where `learn` was given."""
        return self.mdp.learning

    @learning.setter
    def learning(self, value: bool) -> None:
        if value and self.mdp.learner is None:
            raise ValueError("learning=True: this environment was made with learn=None")
        self.mdp.learning = value

    def _restore_pool(self, options: dict[str, Any] | None) -> None:
        """Does what the reset option "pool" asks for."""
        wanted = (options or {}).get("pool")
        if wanted is None:
            return
        if wanted != "initial":
            raise ValueError(f"options: pool={wanted!r}: must be 'initial'")
        if self._initial_pool is not None:
            self.pool.assign(self._initial_pool)

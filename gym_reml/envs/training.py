"""What both faces of the training process share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.face import Face
from gym_reml.envs.recorder import Recorder
from gym_reml.envs.setup import Setup
from gym_reml.mdp import TrainingMDP
from gym_reml.outcome import Outcome
from gym_reml.pool import LayerPool
from gym_reml.rendering import render_ansi, render_rgb
from gym_reml.spaces import ActionEncoding
from gym_reml.streams import row_streams
from gym_reml.tasks.base import TaskFamily


class TrainingFace(Face):
    """A view of a set-up training process.

    Attributes:
        mdp: the process.
        action_encoding: how actions are written, with `decode`, `encode` and `mask`.
    """

    mdp: TrainingMDP
    action_encoding: ActionEncoding
    render_mode: str | None
    _recorders: Sequence[Recorder] = ()

    def _open(self, setup: Setup, render_mode: str | None) -> None:
        """Takes the process over; a pool that learns is remembered as it was."""
        self.mdp, self.action_encoding = setup.mdp, setup.encoding
        self._space, self._pool_source = setup.space, setup.pool_source
        self._initial_pool = setup.mdp.pool.clone() if setup.mdp.learner is not None else None
        self._recorders = [Recorder(row) for row in range(setup.mdp.count)] if render_mode is not None else []
        # What rows draw from that step only because all rows step together: nothing they do then is kept.
        self._idle = row_streams(0, self.split)

    @property
    def process(self) -> TrainingMDP:
        """The rows."""
        return self.mdp

    @property
    def pool(self) -> LayerPool:
        """The pool in use: the very object that was given, if one was."""
        return self.mdp.pool

    @property
    def family(self) -> TaskFamily:
        """The task family in use."""
        return self.mdp.family

    @property
    def split(self) -> str:
        """That of the family."""
        return self.mdp.family.split

    @property
    def learning(self) -> bool:
        """Whether finished episodes change the pool at present. Can be switched where `learn` was given."""
        return self.mdp.learning

    @learning.setter
    def learning(self, value: bool) -> None:
        if value and self.mdp.learner is None:
            raise ValueError("learning=True: this environment was made with learn=None")
        self.mdp.learning = value

    def _obey(self, options: dict[str, Any] | None) -> None:
        """Writes the pool's initial weights back if {"pool": "initial"} is asked for (only where it learns)."""
        wanted = (options or {}).get("pool")
        if wanted is None:
            return
        if wanted != "initial":
            raise ValueError(f"options: pool={wanted!r}: must be 'initial'")
        if self._initial_pool is not None:
            self.pool.assign(self._initial_pool)

    def _restart(self, rows: NDArray[np.int64] | None) -> dict[str, Any]:
        source = np.full(self.mdp.count, self._pool_source, dtype=object)
        return {"pool": source, **super()._restart(rows)}

    def _act(self, actions: Any) -> Outcome:
        generators = [stream.ties for stream in self.mdp.streams]
        layers, steps = self.action_encoding.decode(actions, self.mdp.allowed(), generators)
        outcome = self.mdp.step(layers, steps)
        for recorder in self._recorders:
            recorder.record(self.mdp, int(layers[recorder.row]), outcome.info)
        return outcome

    def _act_in_part(self, actions: Any, idle: NDArray[np.int64]) -> Outcome:
        own = [self.mdp.streams[row] for row in idle]
        self.mdp.seed(idle, [self._idle] * len(idle))
        try:
            return self._act(actions)
        finally:
            self.mdp.seed(idle, own)

    def _draw(self, recorder: Recorder) -> Any:
        frame = recorder.frame(self.mdp)
        return render_ansi(frame) if self.render_mode == "ansi" else render_rgb(frame)

    def _shape(self, flat: NDArray[np.float32], row: int | None) -> Any:
        return observe(flat, self.mdp.parts, self._space, row)


def observe(flat: NDArray[np.float32], parts: dict[str, slice], space: gym.Space[Any], row: int | None) -> Any:
    """Observations as the space has them; of one row, or of all (None)."""
    chosen = flat if row is None else flat[row]
    if isinstance(space, gym.spaces.Dict):
        return {name: chosen[..., parts[name]] for name in space}
    return chosen

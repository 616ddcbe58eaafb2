"""The part shared by single and vector environments that build and train networks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gym_reml.checks import is_integer
from gym_reml.envs.common.arguments import frame_mode
from gym_reml.envs.common.observations import format_observation
from gym_reml.envs.common.view import ProcessView, for_rows
from gym_reml.envs.training.recorder import TrainingRecorder
from gym_reml.envs.training.setup import Setup
from gym_reml.mdp.export import export_network
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.training import TrainingMDP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.rendering.render import render_ansi, render_rgb
from gym_reml.spaces import ActionEncoding, Decision
from gym_reml.streams import row_streams
from gym_reml.tasks.base import TaskFamily

TRUNCATIONS_BEFORE_WARNING = 5
"""Consecutive resets at the same step before the horizon, with no finished episode, after which a warning is given."""


class TrainingView(ProcessView):
    """Base of environments over a `TrainingMDP`.

    Attributes:
        action_encoding: of the actions, with `decode`, `encode` and `mask`.
        pool_source: source of the pool: "packaged", "random", "given" or a path.
        arguments: the arguments that a `MetaLearner` holds, with defaults resolved.
    """

    process: TrainingMDP
    action_encoding: ActionEncoding
    pool_source: str
    arguments: dict[str, Any]
    _options = ("task", "pool")

    def _set_up(self, setup: Setup) -> None:
        """Takes encoding, arguments and observation space from the setup."""
        self.action_encoding, self.arguments = setup.encoding, setup.arguments
        self._space, self.pool_source = setup.space, setup.pool_source
        self._has_masks = self.action_encoding.info_mask(self.mdp.allowed(), self.mdp.count) is not None
        # Whether an episode was finished, or a warning was given that none will be.
        self._episode_finished = False
        # The step at which the last episodes were truncated, and how many in a row.
        self._truncations = (0, 0)
        self._idle_streams = row_streams(0, self.split)

    @property
    def mdp(self) -> TrainingMDP:
        """The process."""
        return self.process

    @property
    def decision(self) -> Decision:
        """The form of the decision in each step."""
        return self.mdp.decision

    @property
    def pool(self) -> LayerPool:
        """The pool in use: the same object, if one was given."""
        return self.mdp.pool

    @property
    def family(self) -> TaskFamily:
        """The task family in use."""
        return self.mdp.family

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.pool.device

    @property
    def learning(self) -> bool:
        """Whether finished episodes change the pool. Can be set in environments made with `learn`."""
        return self.mdp.learning

    @learning.setter
    def learning(self, value: bool) -> None:
        if value and self.mdp.learner is None:
            raise ValueError("learning=True: this environment was made with learn=None")
        self.mdp.learning = value

    @for_rows(takes_row=True)
    def describe_task(self, row: int = 0) -> dict[str, Any]:
        """Describes the row's task in words and numbers; `info["task"]` has only the numbers.

        Raises:
            ValueError: `row` is out of range.
        """
        self._check_started("describe_task")
        return self.family.describe(self.mdp.tasks, self._read_row(row))

    @for_rows(takes_row=True)
    def export(self, row: int = 0) -> nn.Module:
        """A copy of the row's current network as a torch module, see `gym_reml.mdp.export`.

        Raises:
            ValueError: `row` is out of range.
        """
        self._check_started("export")
        return export_network(self.mdp, self._read_row(row))

    def _read_row(self, row: Any) -> int:
        if not is_integer(row) or not 0 <= row < self.mdp.count:
            raise ValueError(f"row={row!r}: must be an integer from 0 to {self.mdp.count - 1}")
        return int(row)

    def _read_options(self, options: Any) -> dict[str, Any]:
        read = super()._read_options(options)
        pool = read.get("pool")
        if pool is not None and not (isinstance(pool, str) and pool == "initial"):
            raise ValueError(f"options: pool={pool!r}: must be 'initial'")
        return read

    def _apply_options(self, options: dict[str, Any]) -> None:
        """Restores the pool's initial weights and restarts its learning, for {"pool": "initial"}."""
        if options.get("pool") is not None:
            self.mdp.restart_learning()

    def _restart(self, rows: NDArray[np.int64] | None, given: Any = None) -> dict[str, Any]:
        if self.mdp.learning and not self._episode_finished:
            clocks, horizon = self.mdp.clock if rows is None else self.mdp.clock[rows], self.mdp.objective.horizon
            clock = int(clocks.max(initial=0))
            self._episode_finished = clock >= horizon
            if 0 < clock < horizon:
                self._truncations = clock, 1 + (self._truncations[1] if clock == self._truncations[0] else 0)
                if self._truncations[1] == TRUNCATIONS_BEFORE_WARNING:
                    warn_of_truncation(clock, horizon)
        return self._with_mask(super()._restart(rows, given))

    def _with_mask(self, info: dict[str, Any]) -> dict[str, Any]:
        """Adds the action mask to the info, where actions can be masked."""
        if self._has_masks:
            info["action_mask"] = self.action_encoding.info_mask(self.mdp.allowed(), self.mdp.count)
        return info

    def _format_info(self, info: dict[str, Any]) -> dict[str, Any]:
        if self._has_masks:
            info["action_mask"] = self.action_encoding.sample_mask(info["action_mask"])
        return info

    def _act(self, actions: Any) -> Outcome:
        generators = self.mdp.data.generators("ties")
        decided = self.action_encoding.decode(actions, self.mdp.allowed(), generators=generators)
        outcome = self.mdp.step(decided)
        for recorder in self._recorders:
            recorder.record(self.mdp, decided, info=outcome.info)
        self._with_mask(outcome.info)
        return outcome

    def _make_recorder(self, row: int) -> TrainingRecorder:
        return TrainingRecorder(row)

    def _draw(self, recorder: TrainingRecorder) -> Any:
        frame = recorder.frame(self.mdp)
        return render_ansi(frame) if frame_mode(self.render_mode) == "ansi" else render_rgb(frame)

    def _process_observation(self) -> Any:
        return self.mdp.observe_tensor() if self.mdp.tensors else self.mdp.observe()

    def _format_observation(self, flat: Any, row: int | None) -> Any:
        return format_observation(flat, self.mdp.parts, self._space, row=row)


def warn_of_truncation(limit: int, horizon: int) -> None:
    """Warns that all episodes are truncated, and that the pool learns from finished ones only."""
    warnings.warn(
        f"learn: episodes are truncated after {limit} of their horizon={horizon} steps, but the pool learns only from "
        "finished episodes, so it will not change. Raise max_episode_steps to the horizon or lower the horizon, and "
        "reset only after episodes have ended.",
        stacklevel=3,
    )

"""Environments with an agent at the dials of training: a Gymnasium `Env` over one row, and a `VectorEnv` over n."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gym_reml.checks import is_integer
from gym_reml.envs.common.arguments import frame_mode
from gym_reml.envs.common.observations import format_observation, make_observation_space
from gym_reml.envs.common.single import ProcessEnv
from gym_reml.envs.common.vector import ProcessVectorEnv
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.common.view import ProcessView, for_rows
from gym_reml.envs.tuning.recorder import TuningRecorder
from gym_reml.envs.tuning.setup import TuningSetup
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.runs import OBSERVATION_LIMIT, NetworkProcess
from gym_reml.rendering.render import render_tuning
from gym_reml.spaces import ActionEncoding, Decision
from gym_reml.streams import row_streams


class TuningView(ProcessView):
    """Base of environments over a `NetworkProcess`.

    Attributes:
        action_encoding: of the actions, with `decode` and `encode`.
    """

    process: NetworkProcess
    action_encoding: ActionEncoding

    def _set_up(self, setup: TuningSetup) -> None:
        self.action_encoding = setup.encoding
        self._idle_streams = row_streams(0, setup.process.data_sets.split)
        self._space = make_observation_space(setup.observation, setup.process.parts, OBSERVATION_LIMIT)

    @property
    def tuning(self) -> NetworkProcess:
        """The process."""
        return self.process

    @property
    def decision(self) -> Decision:
        """The form of the decision in each step."""
        return self.process.decision

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.process.device

    @for_rows(takes_row=True)
    def export(self, row: int = 0) -> nn.Module:
        """A copy of the row's network with its current weights.

        Raises:
            ValueError: `row` is out of range.
        """
        self._check_row("export", row)
        return self.process.network(int(row))

    def _check_row(self, method: str, row: Any) -> None:
        """Raises an error before the first reset, or unless this is one of the rows."""
        self._check_started(method)
        if not is_integer(row) or not 0 <= row < self.process.count:
            raise ValueError(f"row={row!r}: must be an integer from 0 to {self.process.count - 1}")

    def _act(self, actions: Any) -> Outcome:
        generators = [stream.ties for stream in self.process.streams]
        decided = self.action_encoding.decode(actions, self.process.allowed(), generators=generators)
        outcome = self.process.step(decided)
        for recorder in self._recorders:
            recorder.record(self.process, outcome.info)
        return outcome

    def _format_observation(self, flat: Any, row: int | None) -> Any:
        return format_observation(flat, self.process.parts, self._space, row=row)

    def _make_recorder(self, row: int) -> Any:
        return TuningRecorder(row)

    def _draw(self, recorder: Any) -> Any:
        return render_tuning(recorder.frame(self.process), frame_mode(self.render_mode))


class TuningEnv(TuningView, ProcessEnv):
    """A single environment with an agent at the dials of training."""

    def __init__(self, setup: TuningSetup, render_mode: str | None = None) -> None:
        """Takes the result of `make_tuning` for one row."""
        self._set_up(setup)
        super().__init__(
            setup.process,
            setup.encoding.space,
            observation_space=self._space,
            split=setup.process.data_sets.split,
            render_mode=render_mode,
        )


class TuningVectorEnv(TuningView, ProcessVectorEnv):
    """n parallel environments; reset with seed s it equals n single ones reset with seeds s, s + 1, ..."""

    def __init__(
        self,
        setup: TuningSetup,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the result of `make_tuning` for n rows.

        Args:
            setup: the process, with encoding and form of observations.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: number of steps after which episodes are truncated; None for no limit.
            output: "numpy" or "torch", see `ProcessVectorEnv`.

        Raises:
            ValueError: an unknown mode or output, or an invalid number of steps.
        """
        self._set_up(setup)
        super().__init__(
            setup.process,
            setup.encoding.space,
            observation_space=self._space,
            split=setup.process.data_sets.split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            output=output,
        )

"""Environments whose episode is a trial: a Gymnasium `Env` over one row, and a `VectorEnv` over n."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.envs.common.arguments import frame_mode
from gym_reml.envs.common.single import ProcessEnv
from gym_reml.envs.common.vector import ProcessVectorEnv
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.common.view import ProcessView
from gym_reml.envs.trials.recorder import TrialRecorder
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.trial import InnerProcess, TrialProcess
from gym_reml.rendering.render import render_trial
from gym_reml.rendering.trial import find_view
from gym_reml.spaces.base import read_integers, read_numbers
from gym_reml.streams import check_split


class TrialProcessView(ProcessView):
    """Base of environments over a `TrialProcess`."""

    process: TrialProcess

    @property
    def trials(self) -> TrialProcess:
        """The process."""
        return self.process

    def _act(self, actions: Any) -> Outcome:
        read = self._read_actions(actions)
        for recorder in self._recorders:
            recorder.note_place(self.trials)
        outcome = self.trials.step(read)
        for recorder in self._recorders:
            recorder.note_step(self.trials, read, outcome)
        return outcome

    def _read_actions(self, actions: Any) -> NDArray[Any]:
        inner = self.trials.inner
        if inner.actions is None:
            return read_numbers(actions, (inner.count, inner.action_size))
        return read_integers(actions, (inner.count,), inner.actions)

    def _make_recorder(self, row: int) -> TrialRecorder:
        return TrialRecorder(row)

    def _draw(self, recorder: TrialRecorder) -> Any:
        return render_trial(recorder.frame(self.trials), frame_mode(self.render_mode))


class TrialEnv(TrialProcessView, ProcessEnv):
    """A single environment whose episode is a trial.

    Attributes:
        trials: the process, of one row.
    """

    def __init__(
        self, inner: InnerProcess, budget: TrialBudget, *, split: str = "train", render_mode: str | None = None
    ) -> None:
        """Makes trials of an inner process of one row.

        Args:
            inner: the process of the inner episodes.
            budget: number of inner episodes of a trial.
            split: "train", "validation" or "test".
            render_mode: None, "rgb_array" or "ansi".

        Raises:
            ValueError: an unknown split or mode, or a mode although no view renders such trials.
        """
        process = _make_process(inner, budget, render_mode)
        super().__init__(
            process,
            action_space_of(inner),
            observation_space=spaces.Box(*process.observation_limits),
            split=check_split(split),
            render_mode=render_mode,
        )


class TrialVectorEnv(TrialProcessView, ProcessVectorEnv):
    """n parallel environments; reset with seed s it equals n single ones reset with seeds s, s + 1, ...

    Attributes:
        trials: the process, of `num_envs` rows.
    """

    def __init__(
        self,
        inner: InnerProcess,
        budget: TrialBudget,
        *,
        split: str = "train",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Makes trials of an inner process of n rows.

        Args:
            inner: the process of the inner episodes.
            budget: number of inner episodes of a trial.
            split: "train", "validation" or "test".
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: number of steps after which episodes are truncated; None for no limit.
            output: "numpy" or "torch", see `ProcessVectorEnv`.

        Raises:
            ValueError: an unknown split or mode, a mode although no view renders such trials, or an invalid number of
                steps.
        """
        process = _make_process(inner, budget, render_mode)
        super().__init__(
            process,
            action_space_of(inner),
            observation_space=spaces.Box(*process.observation_limits),
            split=check_split(split),
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            output=output,
        )


def action_space_of(inner: InnerProcess) -> spaces.Discrete | spaces.Box:
    """The space of one row's actions."""
    if inner.actions is None:
        return spaces.Box(-1.0, 1.0, (inner.action_size,), np.float32)
    return spaces.Discrete(inner.actions)


def _make_process(inner: InnerProcess, budget: TrialBudget, render_mode: str | None) -> TrialProcess:
    process = TrialProcess(inner, budget)
    if render_mode is not None:
        find_view(inner.name)
        process.watched = True
    return process

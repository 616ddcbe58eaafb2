"""The environments of trials: a Gymnasium `Env` over one trial, a `VectorEnv` over n."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from gym_reml.envs.common.arguments import check_known, check_render_mode, frame_mode
from gym_reml.envs.common.single import ProcessEnv
from gym_reml.envs.common.vector import ProcessVectorEnv
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.common.view import ProcessView
from gym_reml.envs.trials.recorder import TrialRecorder
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.trial import TrialProcess
from gym_reml.rendering.render import render_trial
from gym_reml.streams import check_split


class TrialsView(ProcessView):
    """A view of trials.

    Attributes:
        trials: the process.
    """

    make: ClassVar[Callable[..., TrialProcess]]
    """Makes the process of as many rows as its first argument says."""

    trials: TrialProcess
    render_mode: str | None
    _recorders: Sequence[TrialRecorder] = ()

    def _open(self, count: int, render_mode: str | None, arguments: dict[str, Any]) -> None:
        parameters = inspect.signature(self.make).parameters
        check_known(arguments, [name for name in parameters if name != "num_envs"])
        self._split = check_split(arguments.get("split", parameters["split"].default))
        self.trials = self.make(count, **arguments)
        self.trials.watched = render_mode is not None
        self._recorders = [TrialRecorder(row) for row in range(count)] if self.trials.watched else []

    @property
    def process(self) -> TrialProcess:
        """The rows."""
        return self.trials

    @property
    def split(self) -> str:
        """As given."""
        return self._split

    def _act(self, actions: Any) -> Outcome:
        read = self.trials.read(actions)
        for recorder in self._recorders:
            recorder.note_place(self.trials)
        outcome = self.trials.step(read)
        for recorder in self._recorders:
            recorder.note_step(self.trials, read, outcome)
        return outcome

    def _draw(self, recorder: TrialRecorder) -> Any:
        return render_trial(recorder.frame(self.trials), frame_mode(self.render_mode))


class TrialEnv(TrialsView, ProcessEnv):
    """One trial at a time."""

    def __init__(self, render_mode: str | None = None, **arguments: Any) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: a value that makes no sense; the message names the argument and the choices.
            TypeError: an argument that does not exist.
        """
        check_render_mode(render_mode)
        self._open(1, render_mode, arguments)
        self.action_space = self.trials.action_space
        self.observation_space = self.trials.observation_space
        self.render_mode = render_mode


class TrialVectorEnv(TrialsView, ProcessVectorEnv):
    """n trials side by side; reset with seed s it equals n single environments reset with s, s + 1, ..."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        """Takes the arguments of the single environment, and some of its own.

        Args:
            num_envs: n, how many trials run side by side.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: after how many steps episodes are truncated, as `gym.make` has it; None for never.
            **arguments: those of the single environment.

        Raises:
            ValueError: a value that makes no sense; the message names the argument and the choices.
            TypeError: an argument that does not exist.
        """
        self._open(num_envs, render_mode, arguments)
        self._configure(
            self.trials.action_space, self.trials.observation_space, autoreset_mode, render_mode, max_episode_steps
        )

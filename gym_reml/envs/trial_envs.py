"""What both faces of trials share, and the single one: a Gymnasium `Env` over one trial."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from gym_reml.envs.arguments import check_known, check_render_mode, frame_mode
from gym_reml.envs.face import Face
from gym_reml.envs.single import RowEnv
from gym_reml.envs.trial import TrialProcess
from gym_reml.envs.trial_recorder import TrialRecorder
from gym_reml.outcome import Outcome
from gym_reml.rendering_trials import render_trial
from gym_reml.streams import check_split


class TrialFace(Face):
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


class TrialEnv(TrialFace, RowEnv):
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

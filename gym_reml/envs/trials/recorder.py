"""The history of a trial, for rendering."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gym_reml.mdp.process import Outcome
from gym_reml.mdp.trial import TrialProcess
from gym_reml.rendering.frames import TrialFrame


@dataclass
class TrialRecorder:
    """Records one row's trial."""

    row: int
    places: list[NDArray[np.float64]] = field(default_factory=list)
    arrivals: list[NDArray[np.float64]] = field(default_factory=list)
    actions: list[NDArray[np.float64]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)

    def restart(self, process: TrialProcess) -> None:
        """Clears the history when a trial begins."""
        for history in (self.places, self.arrivals, self.actions, self.rewards, self.episodes, self.ended):
            history.clear()

    def note_place(self, process: TrialProcess) -> None:
        """Records the inner observation before an action."""
        self.places.append(np.array(process.inner.observe()[self.row], dtype=np.float64))

    def note_step(self, process: TrialProcess, actions: NDArray[np.float64], outcome: Outcome) -> None:
        """Records the actions and their outcome."""
        self.arrivals.append(np.array(process.arrived[self.row], dtype=np.float64))
        self.actions.append(np.atleast_1d(actions[self.row]).astype(np.float64))
        self.rewards.append(float(outcome.info["inner_reward"][self.row]))
        self.episodes.append(int(outcome.info["inner_episode"][self.row]))
        # The last feature of an observation is 1 where an inner episode has just ended.
        self.ended.append(bool(outcome.observation[self.row, -1] > 0.5))

    def frame(self, process: TrialProcess) -> TrialFrame:
        """The trial so far, as arrays."""
        inner, horizon = process.inner, process.budget.horizon
        size = inner.observation_limits.shape[1]
        # Steps after the end of the trial are left out.
        steps = sum(episode < horizon for episode in self.episodes)
        over = sum(self.ended[:steps]) == horizon
        return TrialFrame(
            name=inner.name,
            task={name: values[self.row] for name, values in inner.tasks.items()},
            horizon=horizon,
            burn_in=process.budget.burn_in,
            place=self.arrivals[steps - 1] if over else np.array(inner.observe()[self.row], dtype=np.float64),
            places=np.array(self.places[:steps]).reshape(steps, size),
            arrivals=np.array(self.arrivals[:steps]).reshape(steps, size),
            actions=np.array(self.actions[:steps]).reshape(steps, inner.action_size),
            rewards=np.array(self.rewards[:steps]),
            episodes=np.array(self.episodes[:steps], dtype=np.int64),
            ended=np.array(self.ended[:steps], dtype=np.bool_),
        )

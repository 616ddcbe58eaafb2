"""What a person sees of a trial, several inner episodes on one task: arrays in, a picture or a text out.

``TrialFrame`` holds everything there is to show. ``rendering_trials_rgb`` draws it with Pillow, which is loaded no
earlier, ``rendering_trials_ansi`` writes it as text; the words of both are in ``rendering_trials_words``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.plain_text import printable
from gym_reml.rendering import need_pillow


@dataclass(frozen=True)
class TrialFrame:
    """One moment of a trial, after t steps.

    Attributes:
        name: "bandit", "tabular" or "navigation".
        task: its parameters by name: "means" (arms,); "transitions" (states, actions, states) and mean "rewards"
            (states, actions); "goal" (2,).
        horizon: inner episodes of a trial.
        burn_in: how many of them, the first ones, earn nothing.
        place: (size,) float64, the inner observation now; after the end of the trial, where its last step led.
        places: (t, size) float64, inner observations that actions were taken in.
        arrivals: (t, size) float64, inner observations that they led to.
        actions: (t, 1) numbers of discrete actions, or (t, size) of others, float64.
        rewards: (t,) float64, what the steps paid, whether or not it counts.
        episodes: (t,) int64, the number of the inner episode of each step.
        ended: (t,) bool, whether that step was its inner episode's last.
    """

    name: str
    task: dict[str, NDArray[Any]]
    horizon: int
    burn_in: int
    place: NDArray[np.float64]
    places: NDArray[np.float64]
    arrivals: NDArray[np.float64]
    actions: NDArray[np.float64]
    rewards: NDArray[np.float64]
    episodes: NDArray[np.int64]
    ended: NDArray[np.bool_]

    @property
    def steps(self) -> int:
        """Steps so far."""
        return len(self.rewards)

    @property
    def choices(self) -> NDArray[np.int64]:
        """The actions (t,), where they are discrete."""
        return self.actions[:, 0].astype(np.int64)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each inner episode that has any, (e,)."""
        return np.bincount(self.episodes).astype(np.int64)

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """What each inner episode that has steps paid so far, (e,), whether or not it counts."""
        return np.bincount(self.episodes, weights=self.rewards).astype(np.float64)

    @property
    def total(self) -> float:
        """What counts of it."""
        return float(self.returns[self.burn_in :].sum()) + 0.0

    @property
    def unfinished(self) -> bool:
        """Whether the last inner episode that has steps goes on."""
        return bool(self.steps and not self.ended[-1])

    def of(self, episode: int) -> NDArray[np.int64]:
        """Which steps an inner episode has: their indices."""
        return np.flatnonzero(self.episodes == episode)

    def way(self, episode: int) -> NDArray[np.float64]:
        """The inner observations of an inner episode that has steps, in order: (its steps + 1, size)."""
        steps = self.of(episode)
        return np.concatenate([self.places[steps], self.arrivals[steps[-1:]]])


def render_trial(frame: TrialFrame, mode: str | None) -> Any:
    """Show a frame.

    Args:
        frame: What to show.
        mode: "ansi" or "rgb_array".

    Returns:
        Lines of at most 80 columns, which the present standard output can hold, or a picture (560, 896, 3) uint8.

    Raises:
        ImportError: A picture is wanted, and Pillow is not installed.
    """
    if mode == "ansi":
        from gym_reml.rendering_trials_ansi import write_trial

        return printable(write_trial(frame))
    need_pillow()
    from gym_reml.rendering_trials_rgb import draw_trial

    return draw_trial(frame)

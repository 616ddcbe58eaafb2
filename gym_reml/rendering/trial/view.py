"""The interface of views of trials, and texts that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gym_reml.rendering.canvas import Canvas
from gym_reml.rendering.frames import TrialFrame


class TrialView(ABC):
    """Renders one kind of trial as image and text. All methods take the frame to render.

    Attributes:
        unit: name of an inner episode.
    """

    unit: ClassVar[str] = "inner episode"

    @abstractmethod
    def title(self, frame: TrialFrame) -> str:
        """The task and the length of the trial."""

    @abstractmethod
    def clock(self, frame: TrialFrame) -> str:
        """Progress of the trial and its last step: one sentence, without capital and full stop."""

    @abstractmethod
    def picture(self, canvas: Canvas, frame: TrialFrame) -> None:
        """Draws below title and clock, from ``returns.TOP`` to ``returns.BOTTOM``."""

    @abstractmethod
    def lines(self, frame: TrialFrame) -> list[str]:
        """The text below title and clock: lines of at most ``text.COLUMNS`` characters."""


def plural(count: int, noun: str) -> str:
    """A count with its noun, in singular or plural."""
    return f"{count} {noun}{'s' * (count != 1)}"


def burn_in_note(frame: TrialFrame, unit: str) -> str:
    """A sentence that says which inner episodes do not count."""
    count = f"first {frame.burn_in} {unit}s do" if frame.burn_in > 1 else f"first {unit} does"
    return f"the {count} not count"


def burn_in_mark(frame: TrialFrame) -> str:
    """A remark if the current inner episode belongs to the burn-in, else ""."""
    episode = int(frame.episodes[-1]) if frame.steps else 0
    return " (burn-in)" if episode < frame.burn_in else ""


def step_clock(frame: TrialFrame) -> str:
    """The inner episode and its step, as the beginning of a sentence about the last step."""
    if not frame.steps:
        return f"inner episode 1 of {frame.horizon}{burn_in_mark(frame)}: no step yet"
    episode = int(frame.episodes[-1])
    clock = f"inner episode {episode + 1} of {frame.horizon}{burn_in_mark(frame)}, step {frame.lengths[episode]}"
    return clock + (", its last: " if frame.ended[-1] else ": ")

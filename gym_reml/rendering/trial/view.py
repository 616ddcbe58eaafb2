"""What the picture and the text of every kind of trial are made of, and words that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gym_reml.rendering.canvas import Canvas
from gym_reml.rendering.frames import TrialFrame


class TrialView(ABC):
    """How one kind of trial is shown, as a picture and as text. Methods take the frame that is to be shown.

    Attributes:
        unit: what one inner episode is called.
    """

    unit: ClassVar[str] = "inner episode"

    @abstractmethod
    def title(self, frame: TrialFrame) -> str:
        """What the task is, and how long the trial."""

    @abstractmethod
    def clock(self, frame: TrialFrame) -> str:
        """How far the trial is, and what the last step was: one sentence, without capital and full stop."""

    @abstractmethod
    def picture(self, canvas: Canvas, frame: TrialFrame) -> None:
        """Draws below title and clock, from ``returns.TOP`` to ``returns.BOTTOM``."""

    @abstractmethod
    def lines(self, frame: TrialFrame) -> list[str]:
        """The text below title and clock: lines of at most ``text.COLUMNS`` characters."""


def plural(count: int, noun: str) -> str:
    """So many of them."""
    return f"{count} {noun}{'s' * (count != 1)}"


def burn_in_note(frame: TrialFrame, unit: str) -> str:
    """Which units of the budget do not count."""
    count = f"first {frame.burn_in} {unit}s do" if frame.burn_in > 1 else f"first {unit} does"
    return f"the {count} not count"


def burn_in_mark(frame: TrialFrame) -> str:
    """A remark where the present inner episode does not count."""
    episode = int(frame.episodes[-1]) if frame.steps else 0
    return " (burn-in)" if episode < frame.burn_in else ""


def step_clock(frame: TrialFrame) -> str:
    """The inner episode and the step in it, up to the words on the last step."""
    if not frame.steps:
        return f"inner episode 1 of {frame.horizon}{burn_in_mark(frame)}: nothing done yet"
    episode = int(frame.episodes[-1])
    clock = f"inner episode {episode + 1} of {frame.horizon}{burn_in_mark(frame)}, step {frame.lengths[episode]}"
    return clock + (", its last: " if frame.ended[-1] else ": ")

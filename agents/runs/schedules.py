"""Schedules of learning rates."""

from __future__ import annotations


class LinearSchedule:
    """A learning rate that decreases linearly to zero; a class, so that it pickles."""

    def __init__(self, initial: float) -> None:
        self.initial = initial

    def __call__(self, remaining: float) -> float:
        return remaining * self.initial

"""How fast something is."""

from __future__ import annotations

import time
from collections.abc import Callable

import gym_reml  # noqa: F401  (registers the environments)


def rate(work: Callable[[], int], seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Steps per second, by default of this process's CPU time, which other processes on the machine hardly change."""
    steps, start = 0, clock()
    while (passed := clock() - start) < seconds:
        steps += work()
    return steps / passed

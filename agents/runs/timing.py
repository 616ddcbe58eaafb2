"""How fast something is."""

from __future__ import annotations

import time
from collections.abc import Callable

import gym_reml  # noqa: F401  (registers the environments)


def rate(work: Callable[[], int], seconds: float) -> float:
    """Steps per second of this process's CPU time, which other processes on the machine hardly change."""
    steps, start = 0, time.process_time()
    while (passed := time.process_time() - start) < seconds:
        steps += work()
    return steps / passed

"""How fast something is."""

from __future__ import annotations

import time
from collections.abc import Callable

import gym_reml  # noqa: F401  (registers the environments)


def rate(work: Callable[[], int], seconds: float) -> float:
    """Steps per second."""
    steps, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        steps += work()
    return steps / passed

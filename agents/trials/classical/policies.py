"""Base of classical policies of trials: they read observations and remember those of the current trial."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

M = TypeVar("M")

Rows = NDArray[np.int64]
"""Indices of some rows."""


def nearest(length: int, known: Iterable[int]) -> int:
    """Of the lengths of trials for which something was tuned, the nearest in ratio."""
    return min(known, key=lambda candidate: abs(math.log(candidate / length)))


@dataclass(frozen=True)
class Seen:
    """A batch of observations, split into its parts.

    Attributes:
        inner: (n, size) float32, the inner environment's observation.
        action: (n,) int64, the previous action.
        reward: (n,) float64, the previous reward.
        done: (n,) bool, whether an inner episode has just ended.
    """

    inner: NDArray[np.float32]
    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    done: NDArray[np.bool_]


def take_apart(observation: NDArray[np.float32], actions: int) -> Seen:
    """The parts of observations (n, size + actions + 2).

    Raises:
        ValueError: observations too small to hold as many actions.
    """
    size = observation.shape[-1] - actions - 2
    if observation.ndim != 2 or size < 0:
        raise ValueError(f"observation: has shape {observation.shape}, no room for {actions} actions")
    return Seen(
        observation[:, :size],
        observation[:, size : size + actions].argmax(axis=1),
        observation[:, -2].astype(np.float64),
        observation[:, -1] > 0.5,
    )


@dataclass
class Carried(Generic[M]):
    """A policy's state between calls.

    Attributes:
        memory: the statistics of each row's task.
        streams: one generator per row.
    """

    memory: M
    streams: list[np.random.Generator]


class TrialPolicy(ABC, Generic[M]):
    """A policy with SB3's `predict` that keeps everything in its recurrent state, so evaluations are independent.

    Row i draws from its own generator, which follows from the seed and i. Observations are all that is looked at.
    """

    name: str

    def __init__(self, actions: int, seed: int = 0) -> None:
        """A policy of that many actions.

        Raises:
            ValueError: fewer than one action, or a negative seed.
        """
        if actions < 1:
            raise ValueError(f"actions={actions!r}: must be a positive integer")
        if seed < 0:
            raise ValueError(f"seed={seed!r}: must not be negative")
        self.actions, self.seed = actions, seed

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Carried[M] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Carried[M]]:
        """Actions (n,) for observations (n, size), and the state for the next call.

        Args:
            observation: of the trial environment.
            state: what the last call returned, None at the beginning; it is carried on in place.
            episode_start: (n,) bool, rows whose trial begins; by default all if there is no state, else none.
            deterministic: ignored, since stochastic policies explore by sampling.
        """
        count = len(observation)
        seen = take_apart(observation, self.actions)
        if state is None:
            streams = [
                np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(row,))) for row in range(count)
            ]
            state = Carried(self.remember(count), streams)
            episode_start = np.ones(count, dtype=np.bool_)
        elif episode_start is None:
            episode_start = np.zeros(count, dtype=np.bool_)
        begun = np.asarray(episode_start, dtype=np.bool_)
        if begun.any():
            self.forget(state.memory, np.flatnonzero(begun))
        if not begun.all():
            self.learn(state.memory, seen, np.flatnonzero(~begun))
        return self.choose(state.memory, seen, state.streams), state

    @abstractmethod
    def remember(self, rows: int) -> M:
        """A memory of that many rows."""

    @abstractmethod
    def forget(self, memory: M, rows: Rows) -> None:
        """Some rows begin a new trial."""

    @abstractmethod
    def learn(self, memory: M, seen: Seen, rows: Rows) -> None:
        """Updates some rows with the outcome of their last action."""

    @abstractmethod
    def choose(self, memory: M, seen: Seen, streams: list[np.random.Generator]) -> NDArray[np.int64]:
        """The actions (n,)."""

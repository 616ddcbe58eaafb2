"""What there is to show of an episode or a trial, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """The fit of a one-dimensional regression.

    Attributes:
        x: (g,) float, grid.
        target: (g,) float, true function on the grid.
        prediction: (g,) float, the network on the grid.
        support_x: (k,) float, inputs of the support points.
        support_y: (k,) float, targets of the support points.
    """

    x: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    support_x: np.ndarray
    support_y: np.ndarray


@dataclass(frozen=True)
class Paths:
    """Ways on the plane that the network, a policy, took in the support set.

    Attributes:
        before: (m, steps + 1, 2) float, places by trajectory and step before the first step, NaN after the end.
        now: (m, steps + 1, 2) float, the same of the present network.
        goal: (2,) float, where it was to go.
    """

    before: np.ndarray
    now: np.ndarray
    goal: np.ndarray


@dataclass(frozen=True)
class Frame:
    """One moment of an episode of building and training a network.

    Attributes:
        family: Name of the task, such as "sinusoid, 5 shots".
        kind: Layer kind, such as "residual".
        width: Units per layer.
        slots: How many pool layers fit between stem and head.
        pool_size: Number of layers L in the pool.
        layers: Pool numbers (1..L) of the layers in the network, in order.
        horizon: Steps in an episode.
        decided: What was decided so far, by name, one value per step: the number of the option, or the number in its
            own unit. Layers ("layer", 0 = append nothing) and step sizes ("step_size") are drawn, others are named.
        appended: Whether each step put a layer into the network; a full network ignores the choice.
        step_range: Smallest and largest step size there is.
        diverged: Whether each step was refused.
        support_loss: Loss on the support set at steps 0..t, length t + 1.
        query_loss: Loss on the query set at steps 0..t, length t + 1.
        curve: The fit, for one-dimensional regression.
        measure: What the field calls the losses: "loss", or "return" where they are minus it.
        paths: Ways on the plane, for policies that move on one.
        images: (ways, h, w) float in [0, 1], one support image a class, for classification.
        query_accuracy: Share of the query set classified correctly, for classification.
    """

    family: str
    kind: str
    width: int
    slots: int
    pool_size: int
    layers: tuple[int, ...]
    horizon: int
    decided: dict[str, tuple[float, ...]]
    appended: tuple[bool, ...]
    step_range: tuple[float, float]
    diverged: tuple[bool, ...]
    support_loss: tuple[float, ...]
    query_loss: tuple[float, ...]
    measure: str = "loss"
    curve: Curve | None = None
    paths: Paths | None = None
    images: np.ndarray | None = None
    query_accuracy: float | None = None

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return len(self.diverged)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The layer chosen in each step, 0 for none; () where layers are not decided."""
        return tuple(int(layer) for layer in self.decided.get("layer", ()))

    @property
    def step_sizes(self) -> tuple[float, ...]:
        """The size of each gradient step; () where it is not decided."""
        return self.decided.get("step_size", ())

    @property
    def refused(self) -> bool:
        """Whether the last step was refused."""
        return bool(self.diverged and self.diverged[-1])

    @property
    def courses(self) -> dict[str, tuple[float, ...]]:
        """Losses over the steps by the set they are of, or returns, as ``measure`` says."""
        sign = -1.0 if self.measure == "return" else 1.0
        series = {"support": self.support_loss, "query": self.query_loss}
        # Adding 0.0 turns the minus zero of a return into zero.
        return {name: tuple(sign * loss + 0.0 for loss in losses) for name, losses in series.items()}


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

"""The content of an image or text of an episode or trial, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """Paths on the plane of the support trajectories of a network that is a policy.

    Attributes:
        before: (m, T + 1, 2) float, positions by trajectory and time step, of the initial network; NaN after the end.
        now: (m, T + 1, 2) float, those of the current network.
        goal: (2,) float, position of the goal.
    """

    before: np.ndarray
    now: np.ndarray
    goal: np.ndarray


@dataclass(frozen=True)
class Frame:
    """The state of an episode of building and training a network, after some of its steps.

    Attributes:
        family: Name of the family, and shots, such as "sinusoid, 5 shots".
        kind: Layer kind, such as "residual".
        width: Units per layer.
        slots: Number of pool layers that fit between stem and head.
        pool_size: Number of layers L in the pool.
        layers: Pool numbers (1..L) of the layers in the network, in order.
        horizon: Steps in an episode.
        decided: The decisions so far by name, one value per step: the index of the option, or the number in its own
            unit. "layer" (0 for none) and "step_size", or "step_size_stem", "step_size_1" and so on, are drawn, others
            are written.
        appended: Whether each step appended a layer to the network; a full network ignores the choice.
        step_range: Smallest and largest step size.
        diverged: Whether each step was refused.
        support_loss: Loss on the support set at steps 0..t, length t + 1.
        query_loss: Loss on the query set at steps 0..t, length t + 1.
        curve: The fit, for one-dimensional regression.
        measure: "loss", or "return" where the losses are negative returns.
        paths: Paths on the plane, for policies that move on one.
        images: (classes, h, w) float in [0, 1], one support image per class, for classification.
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
    def step_sizes(self) -> dict[str, tuple[float, ...]]:
        """The sizes of the gradient steps: by position, or all by the name ""; {} where they are not decided."""
        sizes = {name: values for name, values in self.decided.items() if name.startswith("step_size")}
        return {name.removeprefix("step_size").removeprefix("_"): values for name, values in sizes.items()}

    @property
    def refused(self) -> bool:
        """Whether the last step was refused."""
        return bool(self.diverged and self.diverged[-1])

    @property
    def courses(self) -> dict[str, tuple[float, ...]]:
        """Losses, or returns according to ``measure``, over the steps: of "support" and of "query"."""
        sign = -1.0 if self.measure == "return" else 1.0
        series = {"support": self.support_loss, "query": self.query_loss}
        # Adding 0.0 turns -0.0 into 0.0.
        return {name: tuple(sign * loss + 0.0 for loss in losses) for name, losses in series.items()}


@dataclass(frozen=True)
class TrialFrame:
    """The state of a trial after t steps.

    Attributes:
        name: "bandit", "tabular" or "navigation".
        task: parameters by name: "means" (arms,); "transitions" (states, actions, states) and mean "rewards"
            (states, actions); or "goal" (2,).
        horizon: number of inner episodes of a trial.
        burn_in: number of first inner episodes without reward.
        place: (size,) float64, the current inner observation; after the end of the trial, its last one.
        places: (t, size) float64, inner observations before each action.
        arrivals: (t, size) float64, inner observations after each action.
        actions: (t, 1) float64, indices of discrete actions, or (t, size) float64.
        rewards: (t,) float64, inner rewards, also during the burn-in.
        episodes: (t,) int64, index of each step's inner episode.
        ended: (t,) bool, whether each step was the last of its inner episode.
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
        """Discrete actions, (t,)."""
        return self.actions[:, 0].astype(np.int64)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Number of steps of each inner episode that has begun, (e,)."""
        return np.bincount(self.episodes).astype(np.int64)

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """Return so far of each inner episode that has begun, (e,), also during the burn-in."""
        return np.bincount(self.episodes, weights=self.rewards).astype(np.float64)

    @property
    def total(self) -> float:
        """The return of the trial so far, without the burn-in."""
        return float(self.returns[self.burn_in :].sum()) + 0.0

    @property
    def unfinished(self) -> bool:
        """Whether the current inner episode has begun and not ended."""
        return bool(self.steps and not self.ended[-1])

    def of(self, episode: int) -> NDArray[np.int64]:
        """Indices of the steps of an inner episode."""
        return np.flatnonzero(self.episodes == episode)

    def path(self, episode: int) -> NDArray[np.float64]:
        """The inner observations of an inner episode that has begun, in order: (its steps + 1, size)."""
        steps = self.of(episode)
        return np.concatenate([self.places[steps], self.arrivals[steps[-1:]]])


@dataclass(frozen=True)
class TuningFrame:
    """The state of a run of training after t decisions.

    Attributes:
        title: what is done here, in a word.
        data: name of the distribution of data sets.
        task: the numbers of the task by name.
        optimizer: name of the optimizer, or other words that end the title.
        metric: name of the metric.
        horizon: decisions of a run.
        updates: minibatches after each decision.
        axes: of each dial, lower end, upper end, and whether the scale is logarithmic.
        dials: the numbers decided by name, t each, such as "step_size".
        words: of a dial whose numbers stand for options, what these are called.
        courses: by name, t + 1 each: "train_loss", "validation_loss", and of the metric the same, such as
            "train_accuracy"; `test_` ones if there is a test part. Without dials: over the whole run, from its start.
        diverged: whether the run has diverged.
        lines: what was written, where there are no dials: a line for each decision, then what came of all.
    """

    title: str
    data: str
    task: dict[str, Any]
    optimizer: str
    metric: str
    horizon: int
    updates: int
    axes: dict[str, tuple[float, float, bool]]
    dials: dict[str, tuple[float, ...]]
    courses: dict[str, tuple[float, ...]]
    diverged: bool
    lines: tuple[str, ...] = ()
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Decisions so far."""
        return len(next(iter(self.dials.values()))) if self.dials else min(len(self.lines), self.horizon)

    @property
    def length(self) -> int:
        """Where the axis of the courses ends: decisions, or without dials minibatches."""
        return max(self.horizon, self.steps) if self.dials else self.updates

    def places(self, course: Sequence[float]) -> NDArray[np.float64]:
        """Where on that axis the values of a course are."""
        if self.dials or len(course) == 1:
            return np.arange(len(course), dtype=np.float64)
        return np.linspace(0.0, self.updates, len(course))

    @property
    def shown(self) -> dict[str, tuple[float, ...]]:
        """The dials that fit into a picture: of more than four, those that were moved the most so far."""
        moved = {name: max(values, default=0.0) - min(values, default=0.0) for name, values in self.dials.items()}
        most = sorted(moved, key=lambda name: -moved[name])[:4]
        return {name: values for name, values in self.dials.items() if name in most}

    @property
    def task_words(self) -> str:
        """The task's numbers as text."""
        words = (f"{name.replace('_', ' ')} {value:g}" for name, value in self.task.items() if np.ndim(value) == 0)
        return ", ".join((self.data, *words))

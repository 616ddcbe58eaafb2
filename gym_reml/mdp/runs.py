"""The base of processes in which an agent takes part in the training of networks."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gym_reml.checks import check_integer, read_parameters
from gym_reml.mdp.child_training import CPU, Child, Children, Criterion, Progress
from gym_reml.mdp.metrics import RETRIEVAL
from gym_reml.mdp.process import Outcome
from gym_reml.networks.optimizers import Optimizer, find_optimizer
from gym_reml.networks.torch_state import own_state
from gym_reml.spaces.decision import Decided, Decision, Masks
from gym_reml.streams import RowStreams
from gym_reml.tasks.data_sets.base import DataSet, DataSets, Task

OBSERVATION_LIMIT = 20.0
WIDTH = 64
"""Units of a hidden layer of the default network, where the task does not say."""

MakeNetwork = Callable[..., nn.Module]
"""Makes a network. It is called with those numbers of the task that are names of its arguments, such as `width`."""


class Axis(NamedTuple):
    """The range of a number in pictures, on a linear or logarithmic scale."""

    low: float
    high: float
    log: bool = False


class DefaultNetwork:
    """The default network: two hidden layers of ReLUs on flattened inputs."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """For inputs and outputs of these sizes."""
        self.inputs, self.outputs = math.prod(input_shape), outputs

    def __call__(self, width: int = WIDTH) -> nn.Module:
        """A network of this width, with new weights."""
        return nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(self.inputs, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, self.outputs),
        )


def check_module(module: Any) -> None:
    """Raises a ValueError unless this can make networks."""
    if isinstance(module, nn.Module):
        raise ValueError(
            f"module={type(module).__name__}(...): is a network, must be a callable that makes one, such as "
            "`lambda: nn.Sequential(...)`, because every episode trains a new one from scratch"
        )
    if not callable(module):
        raise ValueError(f"module={module!r}: must be a callable that makes a torch.nn.Module, or None")


class NetworkProcess(ABC):
    """n rows, in each of which networks are trained from scratch on data sets as an agent decides.

    Subclasses call `_lay_out` when they are made.

    Attributes:
        title: what pictures call what is done.
        count: number of rows, n.
        data_sets: the distribution of data sets.
        decision: what is decided.
        values: what is shown of decisions by name, (n,) each.
        axes: the range of each of them, for pictures.
        words: of those that are numbers of options, what options are called.
        horizon: decisions of an episode.
        updates: minibatches that networks are trained by, at a time.
        device: that networks are trained on.
        children: networks.
        clock: (n,) int64, decisions taken.
        tasks: each row's task.
        parts: slice of each part of the observation by name.
        observation_size: length of an observation.
        metric_name: of the metric, such as "accuracy" or "score".
    """

    title: ClassVar[str]
    words: ClassVar[dict[str, tuple[str, ...]]] = {}
    decision: Decision
    axes: dict[str, Axis]

    @own_state
    def __init__(
        self,
        count: int,
        data_sets: DataSets,
        *,
        module: MakeNetwork | None,
        optimizer: str,
        criterion: Callable[[DataSet], Criterion],
        horizon: int,
        updates: int,
        device: torch.device = CPU,
    ) -> None:
        """Creates the runs; call `seed` and `reset` before the first step.

        Raises:
            ValueError: an invalid value; the message names the argument of the environment.
        """
        for argument, value in (("num_envs", count), ("horizon", horizon), ("updates", updates)):
            check_integer(argument, value)
        self.optimizer: Optimizer = find_optimizer(optimizer)
        self.count, self.data_sets, self.horizon, self.updates = count, data_sets, horizon, updates
        self.device = device
        self.streams: list[RowStreams] = []
        self.clock = np.zeros(count, dtype=np.int64)
        self.tasks: list[Task] = []
        # A first task tells the shapes of everything; it is drawn from a generator of its own.
        generator = np.random.default_rng(0)
        self._example = data_sets.draw(generator)
        data = data_sets.data(self._example, generator)
        self.module = DefaultNetwork(data.input_shape, data.outputs) if module is None else module
        self._takes = _arguments(self.module, self._example)
        measured = criterion(data)
        if data_sets.unseen and measured.metric_name not in RETRIEVAL:
            raise ValueError(
                f"metric={measured.metric_name!r}: has no meaning for classes that are not trained on, and the data "
                f"sets have unseen={data_sets.unseen!r}; must be one of {', '.join(map(repr, RETRIEVAL))} of NetLoss"
            )
        self.metric_name = measured.metric_name
        self.has_test = data.test is not None
        self.children = Children(count, self.optimizer, measured, device)
        # Makes one network, so that errors come now, and the number of groups is known.
        self.children.prepare(self._child(self._example, data, generator))

    def _lay_out(self, decision: Decision, axes: dict[str, Axis], sizes: dict[str, int]) -> None:
        """Takes what is decided, its ranges, and the sizes of the parts of the observation."""
        self.decision, self.axes = decision, axes
        edges = np.cumsum([0, *sizes.values()]).tolist()
        self.parts = {name: slice(*ends) for name, *ends in zip(sizes, edges, edges[1:], strict=False)}
        self.observation_size: int = edges[-1]
        self.values = {name: np.zeros(self.count) for name in decision.names}

    def allowed(self) -> Masks:
        """The options that each row may take now."""
        return self.decision.all_allowed(self.count)

    @abstractmethod
    def reset(self, rows: NDArray[np.int64] | None = None, given: list[Task] | None = None) -> dict[str, Any]:
        """Starts new episodes in these rows (None: all), on new tasks or on these.

        Returns:
            The info of all rows, with the same names as after a step.
        """

    @abstractmethod
    def step(self, decided: Decided) -> Outcome:
        """Does as decided; rows beyond their horizon stay terminated."""

    @abstractmethod
    def observe(self) -> NDArray[np.float32]:
        """A new array with the observations of all rows, (n, observation_size)."""

    @property
    @abstractmethod
    def diverged(self) -> NDArray[np.bool_]:
        """Which rows' training has diverged, (n,)."""

    @abstractmethod
    def network(self, row: int) -> nn.Module:
        """A copy of the row's network, with its current weights."""

    def _child(self, task: Task, data: DataSet, generator: np.random.Generator) -> Child:
        given = {name: task[name] for name in self._takes}
        return Child(partial(self.module, **given), tuple(given.items()), data, generator)

    def seed(self, rows: Sequence[int], streams: Sequence[RowStreams]) -> None:
        """Sets the random streams of these rows, their only source of randomness."""
        if not self.streams:
            self.streams = list(streams)
            return
        for row, stream in zip(rows, streams, strict=True):
            self.streams[row] = stream

    def read_task(self, given: Any, rows: NDArray[np.int64]) -> list[Task]:
        """Reads a user's tasks for these rows; see `checks.read_parameters`.

        Raises:
            ValueError: they are not tasks of this distribution.
        """
        like = {name: np.asarray([value]) for name, value in self._example.items()}
        read = read_parameters(given, like, rows=rows, count=self.count)
        self.data_sets.check(read)
        return [
            {name: values[place].item() if values.ndim == 1 else values[place].copy() for name, values in read.items()}
            for place in range(len(rows))
        ]

    def _info(self) -> dict[str, Any]:
        task = {name: np.stack([task[name] for task in self.tasks]) for name in self._example}
        values = {name: values.copy() for name, values in self.values.items()}
        return self.courses | values | {"diverged": self.diverged.copy(), "task": task}

    @property
    @abstractmethod
    def courses(self) -> dict[str, NDArray[np.float64]]:
        """Copies of what is measured after every decision, by name (n,), such as "validation_accuracy"."""


class RunProcess(NetworkProcess):
    """n runs of training, side by side, in which an agent decides something after every `updates` minibatches.

    An episode trains one network from scratch on one data set. The reward is the gain of the validation metric, so that
    the return is its gain over the whole run. What is decided, and how networks are trained by it, is for subclasses,
    which implement `_start`, `_train`, `_remember` and `_observe_own`.
    """

    def _lay_out(self, decision: Decision, axes: dict[str, Axis], sizes: dict[str, int]) -> None:
        """Takes the sizes of the subclass's own parts of the observation, between what all have."""
        super()._lay_out(decision, axes, {"loss": 6, "metric": 6, **sizes, "progress": 2})
        # Of training, validation: now, one decision before, at the start.
        self._losses, self._metrics = np.zeros((2, self.count, 3)), np.zeros((2, self.count, 3))
        self._best = np.zeros(self.count)
        self._test = np.zeros(self.count)

    @property
    def diverged(self) -> NDArray[np.bool_]:
        return self.children.diverged

    def network(self, row: int) -> nn.Module:
        return self.children.network(row)

    def _begin(self, row: int, data: DataSet) -> None:
        """Takes the data of a row's new child, before it starts."""

    @abstractmethod
    def _start(self, rows: NDArray[np.int64]) -> None:
        """Sets what is decided, and `values`, to what they are at the start, after new children began in these rows."""

    @abstractmethod
    def _train(self, decided: Decided) -> Progress:
        """Trains by `updates` minibatches as decided, and sets `values`."""

    @abstractmethod
    def _remember(self, progress: Progress, rows: NDArray[np.int64] | slice) -> None:
        """Keeps what is observed of these rows, after a start or a step."""

    @abstractmethod
    def _observe_own(self, flat: NDArray[np.float64]) -> None:
        """Writes the subclass's own parts of the observations (n, observation_size)."""

    def _reward(self, gain: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rewards (n,) for gains of the validation metric."""
        return gain

    @own_state
    def reset(self, rows: NDArray[np.int64] | None = None, given: list[Task] | None = None) -> dict[str, Any]:
        """Starts new runs in these rows (None: all), on new tasks or on these.

        Returns:
            The info of all rows, with the same names as after a step.
        """
        rows = np.arange(self.count) if rows is None else rows
        if not self.tasks:
            self.tasks = [self._example] * self.count
        children = []
        for place, row in enumerate(rows.tolist()):
            streams = self.streams[row]
            # Drawn also where a task is given, so that the data are those that the seed draws for it.
            task = self.data_sets.draw(streams.task)
            self.tasks[row] = task if given is None else given[place]
            data = self.data_sets.data(self.tasks[row], streams.support)
            self._begin(row, data)
            # A generator of its own, so that what the row draws next does not depend on how long this run is.
            generator = np.random.default_rng(streams.query.integers(2**63))
            children.append(self._child(self.tasks[row], data, generator))
        progress = self.children.start(rows.tolist(), children)
        measured = self.children.measure("validation")
        for side, (loss, metric) in enumerate(((progress.loss, progress.metric), measured)):
            self._losses[side, rows] = loss[rows, None]
            self._metrics[side, rows] = metric[rows, None]
        self._best[rows] = measured[1][rows]
        self.clock[rows] = 0
        self._start(rows)
        self._remember(progress, rows)
        self._measure_test(rows)
        return self._info()

    def _measure_test(self, rows: NDArray[np.int64] | slice) -> None:
        if self.has_test:
            self._test[rows] = self.children.measure("test")[1][rows]

    @own_state
    def step(self, decided: Decided) -> Outcome:
        """Trains by `updates` minibatches as decided.

        Rows beyond their horizon are trained on and stay terminated.
        """
        progress = self._train(decided)
        rows, reward = self._ready(), np.zeros(self.count)
        if len(rows):
            gain = self._record(progress, rows)
            reward[rows] = self._reward(gain)[rows]
        self.clock += 1
        return Outcome(self.observe(), reward, self.clock >= self.horizon, self._info())

    def _ready(self) -> NDArray[np.int64]:
        """The rows that the current decision trains: all, unless several decisions are made before."""
        return np.arange(self.count)

    def _record(self, progress: Progress, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Measures these rows after their training; the gains (n,) of the validation metric, 0 for others."""
        measured, before = self.children.measure("validation"), self._metrics[1, :, 0].copy()
        for side, (loss, metric) in enumerate(((progress.loss, progress.metric), measured)):
            for kept, now in ((self._losses[side], loss), (self._metrics[side], metric)):
                kept[rows, 1], kept[rows, 0] = kept[rows, 0], now[rows]
        self._best[rows] = np.maximum(self._best, measured[1])[rows]
        self._remember(progress, rows)
        self._measure_test(rows)
        return self._metrics[1, :, 0] - before

    def observe(self) -> NDArray[np.float32]:
        """A new array with the observations of all rows, (n, observation_size)."""
        flat = np.zeros((self.count, self.observation_size))
        parts = self.parts
        for name, kept in (("loss", np.log1p(self._losses)), ("metric", self._metrics)):
            sides = [np.stack([side[:, 0], side[:, 0] - side[:, 1], side[:, 0] - side[:, 2]], axis=1) for side in kept]
            flat[:, parts[name]] = np.concatenate(sides, axis=1)
        # How far the validation metric is from its best: 0 at the best.
        flat[:, parts["metric"].stop - 1] = self._metrics[1, :, 0] - self._best
        self._observe_own(flat)
        progress = parts["progress"].start
        # Beyond the horizon the clock stays at the last decision, so that policies keep acting as they did there.
        flat[:, progress] = np.minimum(self.clock, self.horizon - 1) / self.horizon
        flat[:, progress + 1] = self.diverged
        return np.clip(flat, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32)

    @property
    def courses(self) -> dict[str, NDArray[np.float64]]:
        name = self.metric_name
        measured = {
            "train_loss": self._losses[0, :, 0].copy(),
            f"train_{name}": self._metrics[0, :, 0].copy(),
            "validation_loss": self._losses[1, :, 0].copy(),
            f"validation_{name}": self._metrics[1, :, 0].copy(),
        }
        return measured | ({f"test_{name}": self._test.copy()} if self.has_test else {})


def _arguments(module: MakeNetwork, task: Task) -> tuple[str, ...]:
    """Which of the task's numbers `module` takes; a ValueError if it needs others."""
    check_module(module)
    try:
        parameters = inspect.signature(module).parameters.values()
    except (TypeError, ValueError):
        return ()  # what is written in C tells no names
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    missing = [one.name for one in named if one.default is one.empty and one.name not in task]
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY and one.default is one.empty]
    if missing or positional:
        raise ValueError(
            f"module: needs {', '.join(map(repr, (*positional, *missing)))}; it can take "
            f"{', '.join(map(repr, task)) or 'nothing'}, by name"
        )
    return tuple(one.name for one in named if one.name in task)

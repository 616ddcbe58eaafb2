"""The process of tuning: an agent sets the step size and other dials of networks under training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gym_reml.checks import check_integer, is_number, read_parameters
from gym_reml.mdp.child_training import Child, Children, Progress, criterion_for
from gym_reml.mdp.process import Outcome
from gym_reml.networks.optimizers import Optimizer, find_optimizer
from gym_reml.spaces.decision import Decided, Decision
from gym_reml.streams import RowStreams
from gym_reml.tasks.data_sets.base import DataSet, DataSets, Task

OBSERVATION_LIMIT = 20.0
WIDTH = 64
"""Units of a hidden layer of the default network, where the task does not say."""

TRAITS = ("gradient_norms", "update_ratios", "alignments")
"""What is observed of each group of parameters, by the names of `Progress`."""
SMALLEST = 1e-6
"""Smaller gradient norms and update ratios are observed as this."""

DIALS = ("step_size", "momentum", "weight_decay")
MOMENTA = (0.0, 0.99)
DECAYS = (1e-6, 1e-1)
STEP_RANGES = {"sgd": (1e-3, 1e1), "momentum": (1e-4, 1e1), "adam": (1e-5, 1e0), "rmsprop": (1e-5, 1e0)}
"""Smallest and largest step size by optimizer, where none are given."""

MakeNetwork = Callable[..., nn.Module]
"""Makes a network. It is called with those numbers of the task that are names of its arguments, such as `width`."""


@dataclass(frozen=True)
class Dials:
    """What an agent sets, as places in [-1, 1], and the numbers that places stand for.

    Attributes:
        names: of `DIALS`, in the order of the decision.
        step_range: smallest and largest step size; places are on a logarithmic scale.

    Raises:
        ValueError: unknown or repeated names, or no positive range.
    """

    names: tuple[str, ...]
    step_range: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names) or not set(self.names) <= set(DIALS):
            raise ValueError(f"dials={self.names!r}: must be different ones of {', '.join(map(repr, DIALS))}")
        for argument, value in zip(("min_step", "max_step"), self.step_range, strict=True):
            if not is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{argument}={value!r}: must be a positive number")
        if self.step_range[0] > self.step_range[1]:
            raise ValueError(f"min_step={self.step_range[0]!r}: must not be above max_step={self.step_range[1]!r}")

    def values(self, name: str, places: NDArray[Any]) -> NDArray[np.float64]:
        """The numbers at these places of a dial; on a logarithmic scale, for momenta one of 1 - momentum."""
        shares = (np.asarray(places, dtype=np.float64) + 1.0) / 2.0
        if name == "momentum":
            return 1.0 - _on_log_scale(shares, (1.0 - MOMENTA[0], 1.0 - MOMENTA[1]))
        return _on_log_scale(shares, self.step_range if name == "step_size" else DECAYS)

    def place(self, step_sizes: Any) -> NDArray[np.float64]:
        """The places in [-1, 1] of these step sizes; those outside the range are at its ends."""
        low, high = map(math.log, self.step_range)
        if high == low:
            return np.zeros(np.shape(step_sizes))
        sizes = np.log(np.clip(np.asarray(step_sizes, dtype=np.float64), *self.step_range))
        return 2.0 * (sizes - low) / (high - low) - 1.0


def _on_log_scale(shares: NDArray[np.float64], ends: tuple[float, float]) -> NDArray[np.float64]:
    low, high = map(math.log, ends)
    return np.exp(low + shares * (high - low))


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


class TuningProcess:
    """n runs of training, side by side, with an agent at their dials.

    An episode trains one network from scratch on one data set. Each decision sets the dials for the next `updates`
    minibatches. The reward is the gain of the validation metric, so that the return is its gain over the whole run.

    Attributes:
        count: n.
        data_sets: the distribution of data sets.
        decision: a number for each dial.
        dials: what the decision's numbers stand for.
        horizon: decisions of an episode.
        updates: minibatches that follow a decision.
        children: the networks.
        clock: (n,) int64, decisions taken.
        tasks: each row's task.
        parts: slice of each part of the observation by name.
        observation_size: length of an observation.
        metric_name: of the metric, "accuracy" or "score".
    """

    def __init__(
        self,
        count: int,
        data_sets: DataSets,
        *,
        module: MakeNetwork | None,
        optimizer: str,
        dials: Sequence[str],
        step_range: tuple[float | None, float | None],
        horizon: int,
        updates: int,
    ) -> None:
        """Creates the runs; call `seed` and `reset` before the first step.

        Raises:
            ValueError: an invalid value; the message names the argument of the environment.
        """
        for argument, value in (("num_envs", count), ("horizon", horizon), ("updates", updates)):
            check_integer(argument, value)
        self.optimizer: Optimizer = find_optimizer(optimizer)
        low, high = STEP_RANGES[optimizer]
        ends = low if step_range[0] is None else step_range[0], high if step_range[1] is None else step_range[1]
        if isinstance(dials, str) or not isinstance(dials, Sequence):
            raise ValueError(f"dials={dials!r}: must be a sequence of {', '.join(map(repr, DIALS))}")
        self.dials = Dials(tuple(dials), ends)
        if "step_size" not in self.dials.names:
            raise ValueError(f"dials={dials!r}: must include 'step_size'")
        if "momentum" in self.dials.names and not self.optimizer.has_momentum:
            raise ValueError(f"dials={dials!r}: optimizer={optimizer!r} has no momentum")
        self.count, self.data_sets, self.horizon, self.updates = count, data_sets, horizon, updates
        self.decision = Decision(numbers=len(self.dials.names), names=self.dials.names)
        self.streams: list[RowStreams] = []
        self.clock = np.zeros(count, dtype=np.int64)
        self.tasks: list[Task] = []
        # A first task tells the shapes of everything; it is drawn from a generator of its own.
        generator = np.random.default_rng(0)
        self._example = data_sets.draw(generator)
        data = data_sets.data(self._example, generator)
        self.module = DefaultNetwork(data.input_shape, data.outputs) if module is None else module
        self._takes = _arguments(self.module, self._example)
        criterion = criterion_for(data)
        self.metric_name = criterion.metric_name
        self.has_test = data.test is not None
        self.children = Children(count, self.optimizer, criterion)
        # Makes one network, so that errors come now, and the number of groups is known.
        self.children.prepare(self._child(self._example, data, generator))
        self._lay_out()

    def _lay_out(self) -> None:
        groups, dials = self.children.groups, len(self.dials.names)
        sizes = {
            "loss": 6,
            "metric": 6,
            **dict.fromkeys(TRAITS, groups),
            "dials": dials,
            "progress": 2,
        }
        edges = np.cumsum([0, *sizes.values()]).tolist()
        self.parts = {name: slice(*ends) for name, *ends in zip(sizes, edges, edges[1:], strict=False)}
        self.observation_size: int = edges[-1]
        self._places = np.zeros((self.count, dials))
        # Of training, validation: now, one decision before, at the start.
        self._losses, self._metrics = np.zeros((2, self.count, 3)), np.zeros((2, self.count, 3))
        self._best = np.zeros(self.count)
        self._test = np.zeros(self.count)
        self._traits = {name: np.zeros((self.count, groups)) for name in TRAITS}

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
            # A generator of its own, so that what the row draws next does not depend on how long this run is.
            generator = np.random.default_rng(streams.query.integers(2**63))
            children.append(self._child(self.tasks[row], data, generator))
        progress = self.children.start(rows.tolist(), children)
        measured = self.children.measure("validation")
        for side, (loss, metric) in enumerate(((progress.loss, progress.metric), measured)):
            self._losses[side, rows] = loss[rows, None]
            self._metrics[side, rows] = metric[rows, None]
        self._best[rows] = measured[1][rows]
        self._remember(progress, rows)
        self._places[rows], self.clock[rows] = 0.0, 0
        return self._info({name: np.zeros(self.count) for name in self.dials.names})

    def _remember(self, progress: Progress, rows: NDArray[np.int64] | slice) -> None:
        for name, kept in self._traits.items():
            kept[rows] = getattr(progress, name)[rows]
        if self.has_test:
            self._test[rows] = self.children.measure("test")[1][rows]

    def step(self, decided: Decided) -> Outcome:
        """Sets the dials and trains by `updates` minibatches.

        Rows beyond their horizon are trained on and stay terminated.
        """
        values = {
            name: self.dials.values(name, decided.numbers[:, column]) for column, name in enumerate(self.dials.names)
        }
        progress = self.children.update(
            self.updates,
            values["step_size"],
            momentum=values.get("momentum"),
            weight_decay=values.get("weight_decay"),
        )
        measured = self.children.measure("validation")
        before = self._metrics[1, :, 0].copy()
        for side, (loss, metric) in enumerate(((progress.loss, progress.metric), measured)):
            for kept, now in ((self._losses[side], loss), (self._metrics[side], metric)):
                kept[:, 1], kept[:, 0] = kept[:, 0].copy(), now
        self._best = np.maximum(self._best, measured[1])
        self._remember(progress, slice(None))
        self._places[:] = decided.numbers
        self.clock += 1
        return Outcome(self.observe(), measured[1] - before, self.clock >= self.horizon, self._info(values))

    def observe(self) -> NDArray[np.float32]:
        """A new array with the observations of all rows, (n, observation_size)."""
        flat = np.zeros((self.count, self.observation_size))
        parts = self.parts
        for name, kept in (("loss", np.log1p(self._losses)), ("metric", self._metrics)):
            sides = [np.stack([side[:, 0], side[:, 0] - side[:, 1], side[:, 0] - side[:, 2]], axis=1) for side in kept]
            flat[:, parts[name]] = np.concatenate(sides, axis=1)
        # How far the validation metric is from its best: 0 at the best.
        flat[:, parts["metric"].stop - 1] = self._metrics[1, :, 0] - self._best
        for name in ("gradient_norms", "update_ratios"):
            flat[:, parts[name]] = np.log10(np.maximum(self._traits[name], SMALLEST))
        flat[:, parts["alignments"]] = self._traits["alignments"]
        flat[:, parts["dials"]] = self._places
        progress = parts["progress"].start
        # Beyond the horizon the clock stays at the last decision, so that policies keep acting as they did there.
        flat[:, progress] = np.minimum(self.clock, self.horizon - 1) / self.horizon
        flat[:, progress + 1] = self.children.diverged
        return np.clip(flat, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32)

    def _info(self, values: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
        task = {name: np.stack([task[name] for task in self.tasks]) for name in self._example}
        return self.courses | values | {"diverged": self.children.diverged.copy(), "task": task}

    @property
    def courses(self) -> dict[str, NDArray[np.float64]]:
        """Copies of what is measured after every decision, by name (n,), such as "validation_accuracy"."""
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

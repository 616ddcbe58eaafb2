"""The process of the search for update rules: an agent writes a rule, and networks are trained by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gym_reml.checks import check_integer, is_number, read_parameters
from gym_reml.decisions.update_rules import MOST_GROUPS, OPERANDS, PLACES, RULES, RowRules, Rule, options
from gym_reml.mdp.child_training import Child, Children, Progress, criterion_for
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.runs import MakeNetwork, NetworkProcess
from gym_reml.spaces.decision import Decided, Decision, Masks
from gym_reml.tasks.data_sets.base import DataSets, Task

CHECKS = 10
"""At most so many points of a run's learning curve are kept."""


@dataclass
class _Cohort:
    """The runs of rows that were reset together.

    Attributes:
        rows: which began here; some may have been reset since.
        children: (rows * tasks * rates), the rates of a task side by side.
        generators: one for each child, for what is random in its rule; the rates of a task share it.
    """

    rows: list[int]
    children: Children
    generators: list[np.random.Generator]


class RuleProcess(NetworkProcess):
    """n searches for an update rule, side by side (Bello et al. 2017, arXiv:1709.07417).

    Each decision is a group of the rule. After the last one, networks are trained by the rule from scratch: on each of
    the row's data sets, with each of the step sizes. The reward is 0 before that, then the gain in the validation
    metric, the mean over the data sets, at the step size that gains the most.

    Attributes:
        rates: the step sizes, (R,).
        curves: training loss and metric in the course of the last runs of each row at the best step size, (n, points).
    """

    title = "Rule"

    def __init__(
        self,
        count: int,
        data_sets: DataSets,
        *,
        module: MakeNetwork | None,
        tasks: int,
        rates: Sequence[float],
        horizon: int,
        updates: int,
        device: torch.device,
    ) -> None:
        """Creates the searches; see `NetworkProcess`.

        Raises:
            ValueError: an invalid value; the message names the argument of the environment.
        """
        check_integer("tasks", tasks)
        fine = isinstance(rates, Sequence | np.ndarray) and not isinstance(rates, str) and len(rates) > 0
        if not fine or not all(is_number(rate) and 0 < rate < math.inf for rate in rates):
            raise ValueError(f"rates={rates!r}: must be positive numbers")
        super().__init__(
            count,
            data_sets,
            module=module,
            optimizer="sgd",
            criterion=criterion_for,
            horizon=horizon,
            updates=updates,
            device=device,
        )
        self.rates = np.array(rates, dtype=np.float64)
        self._runs = tasks, len(rates)
        self._of_one = self._example
        self._example = self._joined([self._of_one] * tasks)
        if horizon > MOST_GROUPS:
            raise ValueError(f"horizon={horizon}: a rule has at most {MOST_GROUPS} groups")
        decision = Decision(tuple(map(len, options(horizon))), names=PLACES)
        self._lay_out(decision, {}, {"groups": horizon * decision.size, "progress": 2})
        self.values = {name: np.zeros(count, dtype=np.int64) for name in PLACES}
        self.values |= {"rate": np.zeros(count), "exploded": np.zeros(count)}
        self._choices = np.zeros((count, horizon, len(PLACES)), dtype=np.int64)
        self._cohorts: list[tuple[_Cohort, int]] = []
        self._best = np.zeros(count, dtype=np.int64)
        self._diverged = np.zeros(count, dtype=np.bool_)
        parts = ("train", "validation", "test") if self.has_test else ("train", "validation")
        self._loss, self._metric = ({part: np.zeros(count) for part in parts} for _ in range(2))
        points = min(CHECKS, updates)
        self._pieces = np.diff(np.linspace(0, updates, points + 1).astype(int)).tolist()
        self.curves = {name: np.zeros((count, points)) for name in ("train_loss", f"train_{self.metric_name}")}

    def _joined(self, tasks: Sequence[Task]) -> Task:
        """The tasks of a row as one: its numbers, or arrays of them if there are several."""
        if len(tasks) == 1:
            return tasks[0]
        return {name: np.stack([task[name] for task in tasks]) for name in tasks[0]}

    def split_task(self, row: int) -> list[Task]:
        """The tasks of a row, one for each data set."""
        task = self.tasks[row]
        if self._runs[0] == 1:
            return [task]
        return [
            {name: value[place].item() if value.ndim == 1 else value[place] for name, value in task.items()}
            for place in range(self._runs[0])
        ]

    def read_task(self, given: Any, rows: NDArray[np.int64]) -> list[Task]:
        if self._runs[0] == 1:
            return super().read_task(given, rows)
        like = {name: value[None] for name, value in self._example.items()}
        read = read_parameters(given, like, rows=rows, count=self.count)
        self.data_sets.check({name: values.reshape(-1, *values.shape[2:]) for name, values in read.items()})
        return [{name: values[place] for name, values in read.items()} for place in range(len(rows))]

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Where every run has diverged, (n,)."""
        return self._diverged

    def network(self, row: int) -> nn.Module:
        """A copy of the network on the row's first data set; after training, that of the best step size."""
        cohort, place = self._cohorts[row]
        return cohort.children.network(place * math.prod(self._runs) + int(self._best[row]))

    def rule(self, row: int) -> Rule:
        """The rule of the groups that a row has decided.

        Raises:
            ValueError: there are none yet.
        """
        groups = min(int(self.clock[row]), self.horizon)
        if not groups:
            raise ValueError(f"row={row}: has no rule yet")
        return Rule.from_choices(self._choices[row, :groups])

    def allowed(self) -> Masks:
        operands = len(OPERANDS) + self.clock[:, None]
        masks = list(self.decision.all_allowed(self.count))
        for place in range(2):
            masks[place] &= np.arange(masks[place].shape[1]) < operands
        return tuple(masks)

    def reset(self, rows: NDArray[np.int64] | None = None, given: list[Task] | None = None) -> dict[str, Any]:
        """Starts new searches in these rows (None: all), on new tasks or on these.

        Returns:
            The info of all rows, with the same names as after a step.
        """
        rows = np.arange(self.count) if rows is None else rows
        tasks, rates = self._runs
        if not self.tasks:
            self.tasks = [self._example] * self.count
        children: list[Child] = []
        generators: list[np.random.Generator] = []
        for place, row in enumerate(rows.tolist()):
            streams = self.streams[row]
            # Drawn also where tasks are given, so that the data are those that the seed draws for them.
            drawn = self._joined([self.data_sets.draw(streams.task) for _ in range(tasks)])
            self.tasks[row] = drawn if given is None else given[place]
            for task in self.split_task(row):
                data, seed = self.data_sets.data(task, streams.support), int(streams.query.integers(2**63))
                # Runs of a task differ in the step size alone.
                children += [self._child(task, data, np.random.default_rng(seed))] * rates
                generators += [np.random.default_rng((seed, 1))] * rates
        cohort = _Cohort(rows.tolist(), self._new_children(len(children)), generators)
        progress = cohort.children.start(range(len(children)), children)
        self._cohorts = self._cohorts or [(cohort, 0)] * self.count
        for place, row in enumerate(rows.tolist()):
            self._cohorts[row] = cohort, place
        self.clock[rows] = 0
        self._choices[rows] = 0
        self._best[rows] = 0
        for values in self.values.values():
            values[rows] = 0
        self._keep(cohort, np.arange(len(rows)), progress, cohort.children.measure("validation"))
        return self._info()

    def _new_children(self, count: int) -> Children:
        return Children(count, self.optimizer, self.children.criterion, self.device)

    def _keep(
        self,
        cohort: _Cohort,
        places: NDArray[np.int64],
        progress: Progress,
        validation: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        """Keeps what is measured of the rows at these places, at their best step sizes."""
        rows = np.array(cohort.rows)[places]
        best = self._best[rows]
        measured = {"train": (progress.loss, progress.metric), "validation": validation}
        if self.has_test:
            measured["test"] = cohort.children.measure("test")
        for part, found in measured.items():
            for kept, values in zip((self._loss, self._metric), found, strict=True):
                kept[part][rows] = self._by_row(values)[places, :, best].mean(axis=1)
        diverged = self._by_row(cohort.children.diverged)[places]
        self._diverged[rows], self.values["exploded"][rows] = diverged.all(axis=(1, 2)), diverged.mean(axis=(1, 2))

    def _by_row(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of children by row, task and rate."""
        return values.reshape(-1, *self._runs)

    def step(self, decided: Decided) -> Outcome:
        """Takes a group of each rule, and trains networks where it is the last one.

        Rows beyond their horizon stay as they are, and terminated.
        """
        deciding = np.flatnonzero(self.clock < self.horizon)
        self._choices[deciding, self.clock[deciding]] = decided.choices[deciding]
        for place, name in enumerate(PLACES):
            self.values[name][deciding] = decided.choices[deciding, place]
        self.clock += 1
        done = np.flatnonzero(self.clock == self.horizon)
        before = self._metric["validation"].copy()
        for cohort in {id(self._cohorts[row][0]): self._cohorts[row][0] for row in done.tolist()}.values():
            self._train(cohort)
        reward = self._metric["validation"] - before
        return Outcome(self.observe(), reward, self.clock >= self.horizon, self._info())

    def _train(self, cohort: _Cohort) -> None:
        tasks, rates = self._runs
        places = [place for place, row in enumerate(cohort.rows) if self._cohorts[row][0] is cohort]
        rules = [RULES["sgd"]] * len(cohort.rows)  # rows that were reset since are trained for nothing
        for place in places:
            rules[place] = self.rule(cohort.rows[place])
        every = [rule for rule in rules for _ in range(tasks * rates)]
        rule = RowRules(every, cohort.generators, self.updates)
        step_sizes = np.tile(self.rates, tasks * len(rules))
        course = [cohort.children.update(piece, step_sizes, rule=rule, by_groups=False) for piece in self._pieces]
        validation = cohort.children.measure("validation")
        best = self._by_row(validation[1]).mean(axis=1).argmax(axis=1)
        index = np.array(places)
        rows = np.array(cohort.rows)[index]
        self._best[rows] = best[index]
        self.values["rate"][rows] = self.rates[best[index]]
        self._keep(cohort, index, course[-1], validation)
        for kept, name in zip(self.curves.values(), ("loss", "metric"), strict=True):
            found = np.stack([self._by_row(getattr(progress, name)) for progress in course])
            kept[rows] = found[:, index, :, best[index]].mean(axis=2)

    def observe(self) -> NDArray[np.float32]:
        """A new array with the observations of all rows, (n, observation_size)."""
        flat = np.zeros((self.count, self.observation_size), dtype=np.float32)
        size = self.decision.size
        for group in range(self.horizon):
            part = np.zeros((self.count, size), dtype=np.float32)
            no_numbers = np.zeros((self.count, 0), dtype=np.float32)
            self.decision.flatten(Decided(self._choices[:, group], no_numbers), part)
            flat[:, group * size : (group + 1) * size] = part * (self.clock > group)[:, None]
        progress = self.parts["progress"].start
        # Beyond the horizon the clock stays at the last decision, so that policies keep acting as they did there.
        flat[:, progress] = np.minimum(self.clock, self.horizon - 1) / self.horizon
        flat[:, progress + 1] = self._diverged
        return flat

    @property
    def courses(self) -> dict[str, NDArray[np.float64]]:
        name = self.metric_name
        found = {}
        for part in self._loss:
            if part != "test":
                found[f"{part}_loss"] = self._loss[part].copy()
            found[f"{part}_{name}"] = self._metric[part].copy()
        return found

"""The history of a run of training, or of a search for an update rule, for rendering."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gym_reml.mdp.rule_search import RuleProcess
from gym_reml.mdp.runs import NetworkProcess
from gym_reml.rendering.frames import TuningFrame


@dataclass
class TuningRecorder:
    """Records one row's run."""

    row: int
    dials: dict[str, list[float]] = field(default_factory=dict)
    courses: dict[str, list[float]] = field(default_factory=dict)
    diverged: bool = False

    def restart(self, process: NetworkProcess) -> None:
        """Clears the history when an episode begins."""
        self.dials = {name: [] for name in process.decision.names}
        self.courses = {name: [] for name in process.courses}
        self.diverged = False
        self._record(process)

    def record(self, process: NetworkProcess, info: dict[str, Any]) -> None:
        """Records a decision and what came of it."""
        for name, values in self.dials.items():
            values.append(float(info[name][self.row]))
        self._record(process)

    def _record(self, process: NetworkProcess) -> None:
        for name, values in process.courses.items():
            self.courses[name].append(float(values[self.row]))
        self.diverged = bool(process.diverged[self.row])

    def frame(self, process: NetworkProcess) -> TuningFrame:
        """The run so far."""
        return TuningFrame(
            title=process.title,
            task=dict(process.tasks[self.row]),
            data=process.data_sets.name,
            optimizer=process.optimizer.name,
            metric=process.metric_name,
            horizon=process.horizon,
            updates=process.updates,
            axes={name: (axis.low, axis.high, axis.log) for name, axis in process.axes.items()},
            dials={name: tuple(values) for name, values in self.dials.items()},
            courses={name: tuple(values) for name, values in self.courses.items()},
            diverged=self.diverged,
            words=process.words,
        )


@dataclass
class RuleRecorder:
    """Records one row's rule, and the learning curves of the networks that were trained by it."""

    row: int
    lines: list[str] = field(default_factory=list)
    courses: dict[str, tuple[float, ...]] = field(default_factory=dict)
    diverged: bool = False

    def restart(self, process: RuleProcess) -> None:
        """Clears the history when an episode begins."""
        self.lines = []
        # The curves begin before the first update.
        self.courses = {name: (float(process.courses[name][self.row]),) for name in process.curves}
        self.diverged = bool(process.diverged[self.row])

    def record(self, process: RuleProcess, info: dict[str, Any]) -> None:
        """Records a group, and what came of the rule."""
        if len(self.lines) >= process.horizon:
            return
        result = "d" if len(self.lines) + 1 == process.horizon else f"r{len(self.lines) + 1}"
        self.lines.append(f"{result} = {process.rule(self.row)}")
        if len(self.lines) < process.horizon:
            return
        self.courses = {
            name: (*self.courses[name], *curve[self.row].tolist()) for name, curve in process.curves.items()
        }
        self.diverged = bool(process.diverged[self.row])
        metric = process.metric_name
        self.lines.append(
            f"validation {metric} {info[f'validation_{metric}'][self.row]:.3g} at step size {info['rate'][self.row]:g}"
        )

    def frame(self, process: RuleProcess) -> TuningFrame:
        """The search so far."""
        tasks = len(process.split_task(self.row))
        return TuningFrame(
            title=process.title,
            task=dict(process.tasks[self.row]),
            data=process.data_sets.name,
            optimizer="" if tasks == 1 else f"{tasks} data sets",
            metric=process.metric_name,
            horizon=process.horizon,
            updates=process.updates,
            axes={},
            dials={},
            courses=self.courses,
            diverged=self.diverged,
            lines=tuple(self.lines),
        )

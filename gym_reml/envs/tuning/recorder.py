"""The history of a run of training, for rendering."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gym_reml.mdp.runs import RunProcess
from gym_reml.rendering.frames import TuningFrame


@dataclass
class TuningRecorder:
    """Records one row's run."""

    row: int
    dials: dict[str, list[float]] = field(default_factory=dict)
    courses: dict[str, list[float]] = field(default_factory=dict)
    diverged: bool = False

    def restart(self, process: RunProcess) -> None:
        """Clears the history when an episode begins."""
        self.dials = {name: [] for name in process.decision.names}
        self.courses = {name: [] for name in process.courses}
        self.diverged = False
        self._record(process)

    def record(self, process: RunProcess, info: dict[str, Any]) -> None:
        """Records a decision and what came of it."""
        for name, values in self.dials.items():
            values.append(float(info[name][self.row]))
        self._record(process)

    def _record(self, process: RunProcess) -> None:
        for name, values in process.courses.items():
            self.courses[name].append(float(values[self.row]))
        self.diverged = bool(process.children.diverged[self.row])

    def frame(self, process: RunProcess) -> TuningFrame:
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

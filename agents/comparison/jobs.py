"""One piece of a comparison: an entrant, a benchmark and a seed in, results on all tests out, once and for all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gym_reml.evaluation import Result
from gym_reml.files import file_name, write_text

from ..runs.command_line import program
from ..runs.pieces import Piece
from ..runs.run import commit, versions
from .base import Benchmark, Variant
from .benchmarks import benchmark_of


@dataclass(frozen=True)
class Job(Piece):
    """A training run, if the entrant is trained, and all evaluations of its result.

    Attributes:
        root: run directory of the comparison.
        benchmark: a name of `BENCHMARKS`, or MODULE:FAMILY.
        variant: the shots, or the setting of trials.
        learner: the entrant's name, or MODULE:LEARNER.
        seed: of weights and tasks.
        tasks: training tasks, None for as many as the recipe draws.
        evaluation_tasks: held-out tasks.
        device: that few-shot networks are computed on.
    """

    root: Path
    benchmark: str
    variant: Variant
    learner: str
    seed: int
    tasks: int | None
    evaluation_tasks: int
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.benchmark}, {self._about.label(self.variant)}, {self.learner}, seed {self.seed}"

    @property
    def _about(self) -> Benchmark:
        return benchmark_of(self.benchmark)

    @property
    def folder(self) -> Path:
        """Where it writes: beside others, but budgets of other sizes have folders of their own."""
        budget = "default" if self.tasks is None else str(self.tasks)
        where = "" if self.device == "cpu" else f"-{file_name(self.device)}"
        place = self.root / file_name(self.benchmark) / self._about.folder(self.variant) / f"{budget}-tasks{where}"
        return place / file_name(self.learner) / f"seed-{self.seed}"

    def moved(self, root: Path) -> Job:
        """The same job in another run directory."""
        return replace(self, root=root)

    @property
    def summary_path(self) -> Path:
        """The file that is written last."""
        return self.folder / f"finished-{self.evaluation_tasks}.json"

    @property
    def finished(self) -> bool:
        """Whether its results are there."""
        return self.summary_path.is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """What is known of a finished job.

        These are seconds, parameters, meta_training_tasks, the names of the entrant and its controls, and where it
        recorded them inner_gradients, environment_steps, commit and versions.
        """
        found: dict[str, Any] = json.loads(self.summary_path.read_text(encoding="utf-8"))
        return found

    @property
    def command(self) -> str:
        """What trains and evaluates this entrant, with all seeds up to this one."""
        seeds = self._about.seeds if self._about.entrant(self.learner).seeded else 1
        parts = [
            f"{program('compare')} --family {self.benchmark}",
            self._about.option(self.variant),
            f"--learners {self.learner}",
            f"--seeds {self.seed + 1}" if self.seed + 1 != seeds else "",
            f"--tasks {self.tasks}" if self.tasks is not None else "",
            f"--evaluation-tasks {self.evaluation_tasks}"
            if self.evaluation_tasks != self._about.evaluation_tasks
            else "",
            f"--device {self.device}" if self.device != "cpu" else "",
        ]
        return " ".join(filter(None, parts))

    def finished_like_it(self, own: Iterable[str] = ()) -> list[Job]:
        """All finished jobs in the same run directory that differ in entrant and seed alone, in the table's order.

        Args:
            own: entrants outside the table, MODULE:LEARNER, which come last. Nothing in the directory names code.
        """
        found = []
        for name in dict.fromkeys((*self._about.choices, *own)):
            folders = replace(self, learner=name).folder.parent.glob("seed-*")
            seeds = sorted(int(folder.name.removeprefix("seed-")) for folder in folders)
            found += [job for seed in seeds if (job := replace(self, learner=name, seed=seed)).finished]
        return found

    def result(self, name: str, test: str) -> Result:
        """What a finished job found: of its entrant or a control of it, on one of the benchmark's tests."""
        return Result.load(self._result_path(name, test))

    def _result_path(self, name: str, test: str) -> Path:
        return self.folder / f"{file_name(name)}-{test}-{self.evaluation_tasks}.json"

    def work(self) -> float:
        """Trains and evaluates; returns the seconds of training."""
        found = self._about.measure(
            self.learner,
            self.variant,
            seed=self.seed,
            tasks=self.tasks,
            evaluation_tasks=self.evaluation_tasks,
            folder=self.folder / "training",
            device=self.device,
        )
        names = set()
        for test, results in found.results.items():
            for result in results:
                result.save(self._result_path(result.learner, test))
                names.add(result.learner)
        summary = {
            "seconds": found.seconds,
            "parameters": found.parameters,
            "meta_training_tasks": found.meta_training_tasks,
            "inner_gradients": found.inner_gradients,
            "environment_steps": found.environment_steps,
            "names": sorted(names),
            "commit": commit(),
            "versions": versions(),
        }
        write_text(self.summary_path, json.dumps(summary))
        return found.seconds

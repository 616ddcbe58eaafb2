"""One training of the comparison: a learner, a benchmark and a seed in, results on all its tests out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gym_reml.evaluation import Ensemble, MetaLearner, Result, controls, evaluate
from gym_reml.files import file_name
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.policies.base import PolicyFamily

from ..problems.problem import Problem, count_parameters
from ..problems.recipes import recipe_for
from ..rivals.rival import UNTRAINED
from ..runs.command_line import program
from .benchmarks import BENCHMARKS
from .learners import LEARNERS
from .step_rules import HandRule, Regression, rule_learner
from .stored_jobs import StoredJob

CONTROLLED = ("reml", "reml_multipliers", "reml/maml_rl_pool", "reml/pretrained_pool", "reml/layers")
FEW_TUNING_TASKS = 50


@dataclass(frozen=True)
class Job(StoredJob):
    """A training and what is evaluated after it.

    Attributes:
        root: run directory of the comparison.
        benchmark, learner: names of the tables of `benchmarks` and `learners`.
        shots, seed: of the training.
        tasks: training tasks, None for as many as REML's recipe draws.
        evaluation_tasks: held-out tasks.
    """

    root: Path
    benchmark: str
    shots: int
    learner: str
    seed: int
    tasks: int | None
    evaluation_tasks: int

    @property
    def folder(self) -> Path:
        """Where it writes: beside others, but budgets of other sizes have folders of their own."""
        budget = "default" if self.tasks is None else str(self.tasks)
        name = file_name(self.learner)
        return self.root / self.benchmark / f"{self.shots}-shot" / f"{budget}-tasks" / name / f"seed-{self.seed}"

    @property
    def held_out(self) -> int:
        return self.evaluation_tasks

    def run(self) -> float:
        return _run(self)

    def __str__(self) -> str:
        return f"{self.benchmark}, {self.shots} shots, {self.learner}, seed {self.seed}"

    def finished_like_it(self) -> list[Job]:
        """All finished jobs in the same run directory that differ in learner and seed alone, in the table's order."""
        candidates = (
            replace(self, learner=learner, seed=int(folder.name.removeprefix("seed-")))
            for learner in LEARNERS
            for folder in sorted(replace(self, learner=learner).folder.parent.glob("seed-*"))
        )
        return [job for job in candidates if job.finished]

    @property
    def command(self) -> str:
        """What trains and evaluates this learner, with all seeds up to this one."""
        benchmark = BENCHMARKS[self.benchmark]
        parts = [f"{program('compare')} --family {self.benchmark} --shots {self.shots} --learners {self.learner}"]
        if self.seed + 1 != benchmark.seeds:
            parts.append(f"--seeds {self.seed + 1}")
        if self.tasks is not None:
            parts.append(f"--tasks {self.tasks}")
        if self.evaluation_tasks != benchmark.evaluation_tasks:
            parts.append(f"--evaluation-tasks {self.evaluation_tasks}")
        return " ".join(parts)

    def result(self, learner: str, test: str) -> Result:
        """What a finished job found: of its learner or a control of it, on one of the benchmark's tests."""
        return Result.load(self._result_path(learner, test))

    def _result_path(self, learner: str, test: str) -> Path:
        return self.folder / f"{file_name(learner)}-{test}-{self.evaluation_tasks}.json"


def _run(job: Job) -> float:
    benchmark = BENCHMARKS[job.benchmark]
    family = benchmark.train(job.shots)
    recipe = recipe_for(family)
    tasks = recipe.tasks if job.tasks is None else job.tasks
    problem, folder = Problem(family, recipe.scaled(tasks), tasks, job.seed), job.folder / "training"
    start = time.monotonic()
    learner = LEARNERS[job.learner](problem, folder)
    seconds = time.monotonic() - start
    names = {job.learner}
    for name, test in benchmark.tests(job.shots).items():
        if job.learner in UNTRAINED:
            # Nothing was learned from the training tasks, so its step size may suit those that it is tested on.
            learner = LEARNERS[job.learner](replace(problem, family=test.family), folder)
        for result in _evaluate(job, learner, test.family):
            result.save(job._result_path(result.learner, name))
            names.add(result.learner)
    summary = {
        "seconds": seconds,
        "parameters": count_parameters(learner),
        "meta_training_tasks": 0 if job.learner in UNTRAINED else tasks,
        "names": sorted(names),
    }
    job.finish(summary)
    return seconds


def _evaluate(job: Job, learner: MetaLearner | Ensemble, family: TaskFamily) -> list[Result]:
    protocol: dict[str, Any] = {"steps": BENCHMARKS[job.benchmark].steps, "tasks": job.evaluation_tasks}
    own = evaluate(learner, family, **protocol)
    results = [replace(own, learner=job.learner)]
    if job.learner in CONTROLLED and job.benchmark == "sinusoid" and isinstance(learner, MetaLearner):
        few = min(FEW_TUNING_TASKS, job.evaluation_tasks)
        results += [
            controls.random_layer(learner, family, **protocol),
            controls.constant_step(learner, family, tuning_tasks=few, **protocol),
            controls.shuffled_observation(learner, family, **protocol),
            controls.zeroed_observation(learner, family, **protocol),
            controls.best_composition(learner, family, tuning_tasks=few, **protocol),
        ]
    elif job.learner in CONTROLLED and isinstance(learner, MetaLearner) and isinstance(family, PolicyFamily):
        results += [evaluate(rival, family, **protocol) for rival in _other_steps(job, learner, family)]
    elif job.learner in CONTROLLED and isinstance(learner, MetaLearner):
        results += [controls.random_layer(learner, family, **protocol)]
    return results


def _other_steps(job: Job, learner: MetaLearner, family: PolicyFamily) -> list[MetaLearner]:
    """Who else could choose the steps on the learner's pool."""
    known = family.replace(shots=BENCHMARKS[job.benchmark].train(job.shots).shots)
    return [
        controls.plan_learner(f"{learner.name}/neutral_steps", learner.pool, learner.arguments, (), 0.0),
        rule_learner(f"{learner.name}/hand_rule", learner, HandRule(learner, family)),
        rule_learner(f"{learner.name}/regression", learner, Regression(learner, known, job.seed)),
    ]

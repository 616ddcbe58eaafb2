"""Benchmarks of optimizers: learned and tuned ones on the same test problems, judged by how far the losses fall."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from gym_reml.evaluation import Result

from ..learned_optimizer.entering import JUDGED, OptimizerProblem, judge
from ..learned_optimizer.problems import PROBLEMS
from ..learned_optimizer.step_sizes import HORIZON
from ..learned_optimizer.training import TrainedRule
from ..tuning.training import TuningAgent
from .base import Benchmark, Findings

METRIC = "log_ratio"


@dataclass(frozen=True, kw_only=True)
class OptimizerBenchmark(Benchmark):
    """log10 of the loss over the first one, on test problems of every family. A problem is a task."""

    def variants(self, shots: int | None = None) -> tuple[int, ...]:
        if shots is not None:
            raise ValueError(f"--shots {shots}: not for {self.kind!r}, whose problems have none")
        return (1,)

    def label(self, variant: int) -> str:
        return "all problems"

    def folder(self, variant: int) -> str:
        return "all"

    def option(self, variant: int) -> str:
        return ""

    def metric(self, variant: int) -> str:
        return METRIC

    def steps(self, variant: int) -> tuple[int, ...]:
        return JUDGED

    def tests(self, variant: int) -> dict[str, str | None]:
        return {name: "heldout" if kind.held_out else "train" for name, kind in PROBLEMS.items()}

    def measure(
        self,
        name: str,
        variant: int,
        *,
        seed: int,
        tasks: int | None,
        evaluation_tasks: int,
        folder: Path,
        device: str = "cpu",
    ) -> Findings:
        start = time.monotonic()
        trained = self.entrant(name).train(OptimizerProblem(tasks, seed), folder)
        results = {}
        for test, kind in PROBLEMS.items():
            descent = judge(trained, kind, evaluation_tasks)
            results[test] = [
                Result(
                    name,
                    test,
                    shots=kind.family.shots,
                    seed=0,
                    steps=JUDGED,
                    metrics={METRIC: descent.log_ratio},
                    diverged=descent.diverged,
                    fingerprint=kind.family.fingerprint,
                )
            ]
        rule = trained if isinstance(trained, TrainedRule) else None
        agent = trained if isinstance(trained, TuningAgent) else None
        learned = rule or agent
        drawn = rule.problems if rule is not None else agent.steps // HORIZON if agent is not None else 0
        return Findings(
            results,
            time.monotonic() - start if learned is None else learned.seconds,
            parameters=0 if learned is None else learned.parameters,
            meta_training_tasks=drawn,
            inner_gradients=None if rule is None else rule.gradients,
            environment_steps=None if agent is None else agent.steps,
        )

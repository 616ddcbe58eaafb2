"""Benchmarks of trials: policies act for several episodes on each held-out task; the metric is their total return."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gym_reml.evaluation import Result

from ..trials.play import play
from ..trials.rl2.recipes import Setting, TrialProblem
from ..trials.rl2.training import TrainedAgent
from .base import Benchmark, Findings

METRIC = "return"


@dataclass(frozen=True, kw_only=True)
class TrialBenchmark(Benchmark):
    """RL² and classical policies on the same held-out trials. A trial is a task.

    Attributes:
        trained: settings in which everyone is tested, those that are trained being trained for each on its own.
        untrained: settings for those alone that draw no training tasks.
    """

    trained: tuple[Setting, ...]
    untrained: tuple[Setting, ...] = ()

    def variants(self, shots: int | None = None) -> tuple[Setting, ...]:
        if shots is not None:
            raise ValueError(f"--shots {shots}: not for {self.kind!r}, whose tasks are trials, which have no shots")
        return (*self.trained, *self.untrained)

    def label(self, variant: Setting) -> str:
        return str(variant)

    def folder(self, variant: Setting) -> str:
        return f"{variant.family}-{variant.episodes}-episodes"

    def option(self, variant: Setting) -> str:
        return ""

    def enters(self, name: str, variant: Setting) -> bool:
        return variant in self.trained or not self.entrant(name).draws_tasks

    def metric(self, variant: Setting) -> str:
        return METRIC

    def steps(self, variant: Setting) -> tuple[int, ...]:
        return (variant.episodes,)

    def tests(self, variant: Setting) -> dict[str, str | None]:
        return {variant.family: None}

    def measure(
        self,
        name: str,
        variant: Setting,
        *,
        seed: int,
        tasks: int | None,
        evaluation_tasks: int,
        folder: Path,
        device: str = "cpu",
    ) -> Findings:
        start = time.monotonic()
        player = self.entrant(name).train(TrialProblem(variant, tasks, seed), folder)
        trained = player if isinstance(player, TrainedAgent) else None
        returns = play(player if trained is None else trained.policy, variant, evaluation_tasks)
        result = Result(
            name,
            variant.family,
            shots=None,
            seed=0,
            steps=(variant.episodes,),
            metrics={METRIC: returns.total[None]},
            diverged=None,
            arguments=asdict(variant),
            axis="episode",
        )
        results = {variant.family: [result]}
        if trained is None:
            return Findings(
                results,
                time.monotonic() - start,
                parameters=0,
                meta_training_tasks=0,
                inner_gradients=0,
                environment_steps=0,
            )
        # Trials of navigation may be shorter than the longest, so that there the number is a lower bound.
        drawn = trained.steps // variant.length
        return Findings(
            results,
            trained.seconds,
            trained.parameters,
            drawn,
            inner_gradients=0,
            environment_steps=trained.steps,
        )

"""Benchmarks of tuning: agents and fixed policies set the dials of the same held-out training runs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gym_reml.evaluation import Result

from ..tuning.augmentations import FoundPolicy
from ..tuning.setting import Played, TuningProblem, TuningSetting, play
from ..tuning.training import TuningAgent
from .base import Benchmark, Findings


@dataclass(frozen=True, kw_only=True)
class TuningBenchmark(Benchmark):
    """Final metrics on the test parts of held-out tasks. A run of training is a task.

    Attributes:
        setting: the runs.
    """

    setting: TuningSetting

    def variants(self, shots: int | None = None) -> tuple[TuningSetting, ...]:
        if shots is not None:
            raise ValueError(f"--shots {shots}: not for {self.kind!r}, whose tasks are data sets, which have no shots")
        return (self.setting,)

    def label(self, variant: TuningSetting) -> str:
        return str(variant)

    def folder(self, variant: TuningSetting) -> str:
        return variant.folder

    def option(self, variant: TuningSetting) -> str:
        return ""

    def metric(self, variant: TuningSetting) -> str:
        return variant.measured

    def steps(self, variant: TuningSetting) -> tuple[int, ...]:
        return (1,)

    def tests(self, variant: TuningSetting) -> dict[str, str | None]:
        return {variant.family: None}

    def measure(
        self, name: str, variant: TuningSetting, *, seed: int, tasks: int | None, evaluation_tasks: int, folder: Path
    ) -> Findings:
        start = time.monotonic()
        player = self.choices[name].train(TuningProblem(variant, tasks, seed), folder)
        if callable(player):
            played: Played = player(evaluation_tasks)
        else:
            policy = player.policy if isinstance(player, TuningAgent) else player
            played = play(policy, variant, evaluation_tasks)
        result = Result(
            name,
            variant.family,
            shots=None,
            seed=0,
            steps=(1,),
            metrics={
                variant.measured: played.test[None],
                f"validation_{variant.measured}": played.validation[None],
            },
            diverged=None,
            arguments=asdict(variant),
            notes=getattr(player, "notes", {}),
            axis="episode",
        )
        trained = player if isinstance(player, TuningAgent | FoundPolicy) and player.steps else None
        return Findings(
            {variant.family: [result]},
            time.monotonic() - start if trained is None else trained.seconds,
            parameters=0 if trained is None else trained.parameters,
            meta_training_tasks=0 if trained is None else trained.steps // variant.horizon,
            inner_gradients=None,
            environment_steps=None if trained is None else trained.steps,
        )

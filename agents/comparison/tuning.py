"""Benchmarks of tuning: agents and fixed policies set the dials of the same held-out training runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gym_reml.evaluation import Result

from ..tuning.augmentations import FoundPolicy
from ..tuning.rules import FoundRule
from ..tuning.setting import Played, RunSetting, TuningProblem, play
from ..tuning.training import TuningAgent
from .base import Benchmark, Findings


@dataclass(frozen=True, kw_only=True)
class TuningBenchmark(Benchmark):
    """Final metrics on the test parts of held-out tasks. A run of training is a task.

    Attributes:
        setting: the runs.
        held_out: families that it is tested on besides, and was not trained on.
    """

    setting: RunSetting
    held_out: tuple[str, ...] = ()

    def variants(self, shots: int | None = None) -> tuple[RunSetting, ...]:
        if shots is not None:
            raise ValueError(f"--shots {shots}: not for {self.kind!r}, whose tasks are data sets, which have no shots")
        return (self.setting,)

    def label(self, variant: RunSetting) -> str:
        return str(variant)

    def folder(self, variant: RunSetting) -> str:
        return variant.folder

    def option(self, variant: RunSetting) -> str:
        return ""

    def metric(self, variant: RunSetting) -> str:
        return variant.measured

    def steps(self, variant: RunSetting) -> tuple[int, ...]:
        return (1,)

    def tests(self, variant: RunSetting) -> dict[str, str | None]:
        return {variant.family: None} | dict.fromkeys(self.held_out, "heldout")

    def measure(
        self,
        name: str,
        variant: RunSetting,
        *,
        seed: int,
        tasks: int | None,
        evaluation_tasks: int,
        folder: Path,
        device: str = "cpu",
    ) -> Findings:
        start = time.monotonic()
        player = self.entrant(name).train(TuningProblem(variant, tasks, seed), folder)
        players = {name: _how(player)}
        notes = getattr(player, "notes", {})
        if isinstance(player, FoundRule) and player.agent is not None:
            players[f"{name}/average"] = player.average
        results = {}
        for family in self.tests(variant):
            setting = replace(variant, family=family)
            results[family] = [
                Result(
                    learner,
                    family,
                    shots=None,
                    seed=0,
                    steps=(1,),
                    metrics={
                        variant.measured: played.test[None],
                        f"validation_{variant.measured}": played.validation[None],
                    },
                    diverged=None,
                    arguments=asdict(setting),
                    notes=notes,
                    axis="episode",
                )
                for learner, how in players.items()
                for played in [how(setting, evaluation_tasks)]
            ]
        agent = player if isinstance(player, TuningAgent | FoundPolicy | FoundRule) and player.steps else None
        drawn = self.entrant(name).draws_tasks
        return Findings(
            results,
            time.monotonic() - start if agent is None else agent.seconds,
            parameters=0 if agent is None else agent.parameters,
            meta_training_tasks=0 if agent is None or not drawn else agent.steps // variant.horizon,
            inner_gradients=None,
            environment_steps=None if agent is None else agent.steps,
        )


def _how(player: Any) -> Callable[[Any, int], Played]:
    """How an entrant plays held-out tasks."""
    if callable(player):
        return player
    if isinstance(player, TuningAgent):
        return lambda setting, tasks: play(player.policy, replace(player.setting, family=setting.family), tasks)
    return lambda setting, tasks: play(player, setting, tasks)

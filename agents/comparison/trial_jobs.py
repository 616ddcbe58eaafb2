"""One entry of the tables of trials: a policy, a setting and a seed in, its returns on held-out trials out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from gym_reml.evaluation import Policy, Result

from ..runs.run import Run
from ..trials.baselines import baselines
from ..trials.play import play
from ..trials.rl2.recipes import Setting, recipe_for
from ..trials.rl2.training import train
from .stored_jobs import StoredJob

RL2 = "rl2"
METRIC = "return"


@dataclass(frozen=True)
class Job(StoredJob):
    """A training, if the policy is one that is trained, and its evaluation.

    Attributes:
        root: run directory.
        setting: which trials.
        learner: "rl2" or a baseline.
        seed: of the training, or of what a baseline draws.
        total_steps: of the training; None for the recipe's.
        trials: held-out ones.
    """

    root: Path
    setting: Setting
    learner: str
    seed: int
    total_steps: int | None
    trials: int

    @property
    def folder(self) -> Path:
        """Where it writes; trainings of other lengths have folders of their own."""
        length = "" if self.learner != RL2 or self.total_steps is None else f"-{self.total_steps}-steps"
        place = f"{self.setting.episodes}-episodes"
        return self.root / self.setting.family / place / f"{self.learner}{length}" / f"seed-{self.seed}"

    @property
    def held_out(self) -> int:
        return self.trials

    def run(self) -> float:
        return _run(self)

    def __str__(self) -> str:
        return f"{self.setting}, {self.learner}, seed {self.seed}"

    @property
    def _result(self) -> Path:
        return self.folder / f"result-{self.trials}.json"

    @property
    def result(self) -> Result:
        """What a finished job found: the return of every trial, under the step that is the trial's episodes."""
        return Result.load(self._result)

    def others(self) -> list[Job]:
        """All finished jobs in the run directory that differ in the seed alone."""
        folders = self.folder.parent.glob("seed-*")
        jobs = [replace(self, seed=int(folder.name.removeprefix("seed-"))) for folder in folders]
        return sorted((job for job in jobs if job.finished), key=lambda job: job.seed)


def _run(job: Job) -> float:
    setting = job.setting
    start = time.monotonic()
    policy: Policy
    if job.learner == RL2:
        recipe = recipe_for(setting)
        if job.total_steps is not None:
            recipe = replace(recipe, total_steps=job.total_steps)
        trained = train(Run.begun(job.folder / "training", recipe, RL2), setting, recipe, job.seed)
        policy = trained.policy
        # A trial is a task; navigation's trials may be shorter, so that there the number is a lower bound.
        about = {
            "seconds": trained.seconds,
            "parameters": trained.parameters,
            "meta_training_tasks": trained.steps // setting.length,
        }
    else:
        policy = baselines(setting, job.seed)[job.learner]
        about = {"parameters": 0, "meta_training_tasks": 0}
    returns = play(policy, setting, job.trials)
    # What is not trained has no seconds of training: those of its trials, planning included.
    about = {"seconds": time.monotonic() - start} | about
    values = returns.total[None]
    Result(
        job.learner,
        setting.family,
        0,
        0,
        (setting.episodes,),
        {METRIC: values},
        np.zeros(values.shape, dtype=np.bool_),
        asdict(setting),
    ).save(job._result)
    job.finish(about)
    return float(about["seconds"])

"""RL² and classical policies on the same held-out trials: `python -m agents.compare_trials --table bandits`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from rich import print as show

from .comparison.rows import Row, made_by, make_row, merge_rows
from .comparison.stored_jobs import run_job, single_thread
from .comparison.tables import table_of
from .comparison.trial_jobs import METRIC, RL2, Job
from .runs.command_line import check_options, default_is, program, run_command
from .trials.baselines import DETERMINISTIC, baselines
from .trials.rl2.recipes import Setting

SEEDS, TRIALS = 3, 1000
QUICK_SEEDS, QUICK_TRIALS, QUICK_STEPS = 2, 20, 1


@dataclass(frozen=True)
class Table:
    """A result file.

    Attributes:
        file: its name.
        trained: settings in which RL² is trained, and everyone tested.
        untrained: settings for the baselines alone.
    """

    file: str
    trained: tuple[Setting, ...]
    untrained: tuple[Setting, ...] = ()


TABLES = {
    "bandits": Table(
        "bandits.json", tuple(Setting("bandit", pulls, arms) for pulls in (10, 100) for arms in (5, 10, 50))
    ),
    "tabular": Table("tabular.json", (Setting("tabular", 10),), (Setting("tabular", 25), Setting("tabular", 50))),
}


@dataclass(frozen=True)
class Config:
    """Trains RL² for several seeds, lets it and the classical policies play the same held-out trials, and tabulates.

    Interrupted, the same command goes on where it was: what is finished lies in the run directory.
    """

    table: Literal["bandits", "tabular"] = "bandits"
    """which of the tables"""
    seeds: int | None = None
    """trainings of each setting, and generators of each policy that draws"""
    total_steps: int | None = None
    """environment steps of a training"""
    trials: int | None = None
    """held-out trials"""
    run: Path = Path("runs/trials")
    """run directory"""
    results: Annotated[Path | None, default_is("the run directory")] = None
    """folder of the result file that the rows are merged into"""
    quick: bool = False
    """everything tiny: shows that it works, not what it is worth"""

    def implied(self) -> dict[str, str]:
        """What goes without saying, for `--help`."""
        total_steps, trials = replace(self, total_steps=None, trials=None).budget
        return {
            "seeds": f"{QUICK_SEEDS if self.quick else SEEDS}",
            "total_steps": "each setting's own" if total_steps is None else f"{total_steps}",
            "trials": f"{trials}",
        }

    def command(self, seeds: int) -> str:
        """What makes the rows, with that many seeds."""
        parts = [f"{program('compare_trials')} --table {self.table}"]
        if seeds != SEEDS:
            parts.append(f"--seeds {seeds}")
        total_steps, trials = self.budget
        if total_steps is not None:
            parts.append(f"--total-steps {total_steps}")
        if trials != TRIALS:
            parts.append(f"--trials {trials}")
        return " ".join(parts)

    @property
    def budget(self) -> tuple[int | None, int]:
        """Training steps, None for the recipes', and held-out trials."""
        return (
            self.total_steps or (QUICK_STEPS if self.quick else None),
            self.trials or (QUICK_TRIALS if self.quick else TRIALS),
        )


def jobs_of(config: Config) -> list[Job]:
    """Every entry that the configuration asks for, seed by seed.

    Raises:
        ValueError: a number that makes no sense.
    """
    check_options(config, seeds=1, total_steps=1, trials=2)
    table, (total_steps, trials) = TABLES[config.table], config.budget
    return [
        Job(config.run, setting, learner, seed, total_steps, trials)
        for seed in range(config.seeds or (QUICK_SEEDS if config.quick else SEEDS))
        for setting in (*table.trained, *table.untrained)
        for learner in (*((RL2,) if setting in table.trained else ()), *baselines(setting))
        if seed == 0 or learner not in DETERMINISTIC
    ]


def row_of(jobs: Sequence[Job], command: str) -> Row:
    """The row of finished jobs that differ in the seed alone."""
    summaries = [job.summary for job in jobs]
    about: dict[str, Any] = {
        "learner": jobs[0].learner,
        "family": jobs[0].setting.family,
        "shots": None,
        "meta_training_tasks": summaries[0]["meta_training_tasks"],
        "parameters": summaries[0]["parameters"],
        "seconds": round(float(np.mean([summary["seconds"] for summary in summaries])), 1),
        "command": command,
        **made_by(summaries),
    }
    return make_row([job.result for job in jobs], jobs[0].setting.episodes, METRIC, about)


def main(config: Config) -> None:
    """Runs what is left to run, and merges the rows of all that is there, of earlier runs too."""
    single_thread()
    jobs = jobs_of(config)
    left = [job for job in jobs if not job.finished]
    show(f"run directory: {config.run} ({len(left)} of {len(jobs)} entries left to do)")
    for done, job in enumerate(left, start=1):
        seconds = run_job(job)
        print(f"[{done}/{len(left)}] {job}: {seconds:.0f} s", flush=True)
    entries = [job.others() for job in jobs if job.seed == 0]
    command = config.command(max(map(len, entries)))
    rows = [row_of(finished, command) for finished in entries]
    path = (config.results or config.run) / TABLES[config.table].file
    merge_rows(path, rows)
    print(f"\n{config.table}, into {path}:\n\n{table_of(rows)}")


if __name__ == "__main__":
    run_command(main, Config)

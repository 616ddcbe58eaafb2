"""One table over several seeds: `python -m agents.average RUN RUN RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gym_reml.evaluation import Result
from gym_reml.evaluation.results import markdown_table

from .problems.families import check_own, family_of
from .problems.problem import TABLE_STEPS
from .reml.configuration import config_of, recipe_of
from .runs.command_line import run_command
from .runs.run import Run


@dataclass(frozen=True)
class Config:
    """Averages the final tables of runs that differ in their seed alone."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")
    ]
    """run directories of finished runs"""


def main(config: Config) -> None:
    """Prints a Markdown table: mean over seeds of the means over tasks, lowest and highest seed, mean median."""
    if not config.runs:
        raise ValueError("RUN: name at least one run directory")
    runs = [Run(folder) for folder in config.runs]
    names = [{path.stem for path in (run.folder / "results").glob("*.json")} for run in runs]
    metric = _metric(runs[0])
    rows = []
    for name in sorted(set.intersection(*names)):
        results = [Result.load(run.folder / "results" / f"{name}.json") for run in runs]
        cells = []
        for step in TABLE_STEPS:
            summaries = [result.summary(step, metric) for result in results]
            means = [summary.mean for summary in summaries]
            median = np.mean([summary.median for summary in summaries])
            cells.append(f"{np.mean(means):.3f} [{min(means):.3f}, {max(means):.3f}] ({median:.3f})")
        diverged = np.mean([result.summary(TABLE_STEPS[-1], metric).diverged for result in results])
        rows.append([results[0].learner, *cells, f"{diverged:.2%}"])
    if not rows:
        raise ValueError("RUN: these runs have no results in common; are they finished?")
    print(f"{metric}, mean over {len(runs)} seeds [lowest, highest seed] (mean of the medians)\n")
    steps = [f"{step} step{'s' if step != 1 else ''}" for step in TABLE_STEPS]
    print(markdown_table(["learner", *steps, "diverged"], rows))


def _metric(run: Run) -> str:
    """What the run's tables show."""
    training, settings = config_of(run), run.about.get("settings")
    if settings is not None:
        return str(settings["recipe"]["metric"])
    check_own(training.family, run.folder)
    return recipe_of(training, family_of(training)).metric


if __name__ == "__main__":
    run_command(main, Config)

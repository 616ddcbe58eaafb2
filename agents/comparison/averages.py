"""One table over runs of `agents.train` that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gym_reml.evaluation import Result
from gym_reml.evaluation.results import markdown_table

from ..problems.families import check_own, family_of
from ..problems.problem import TABLE_STEPS
from ..reml.configuration import config_of, recipe_of
from ..runs.run import Run
from ..tuning.setting import SETTINGS
from . import siblings


def average(runs: Sequence[Run]) -> str:
    """Mean over seeds of the means over tasks, lowest and highest seed, mean of the medians; a Markdown table.

    Raises:
        ValueError: runs that have no results in common.
    """
    metric, steps = _shown(runs[0])
    found = [{result.learner: result for result in _results(run)} for run in runs]
    rows = []
    for name in sorted(set.intersection(*map(set, found))):
        results = [one[name] for one in found]
        cells = []
        for step in steps:
            summaries = [result.summary(step, metric) for result in results]
            means = [summary.mean for summary in summaries]
            median = np.mean([summary.median for summary in summaries])
            cells.append(f"{np.mean(means):.3f} [{min(means):.3f}, {max(means):.3f}] ({median:.3f})")
        if results[0].diverged is not None:
            cells.append(f"{np.mean([result.summary(steps[-1], metric).diverged for result in results]):.2%}")
        rows.append([name, *cells])
    if not rows:
        raise ValueError("RUN: these runs have no results in common; are they finished?")
    columns = [f"{step} step{'s' if step != 1 else ''}" for step in steps]
    head = ["learner", *columns, "diverged"] if len(rows[0]) == len(steps) + 2 else ["policy", metric]
    about = f"{metric}, mean over {len(runs)} seeds [lowest, highest seed] (mean of the medians)"
    return f"{about}\n\n{markdown_table(head, rows)}"


def _results(run: Run) -> list[Result]:
    """What the run's table shows, if it is finished."""
    folder = run.folder / "results"
    if not folder.is_dir():
        return []
    if run.config.get("env") in SETTINGS:
        return siblings.results_of(run.options(siblings.Config).jobs(run.folder))
    return [Result.load(path) for path in folder.glob("*.json")]


def _shown(run: Run) -> tuple[str, tuple[int, ...]]:
    """The metric and the steps of the run's table."""
    if run.config.get("env") in SETTINGS:
        return run.options(siblings.Config).benchmark()[1].setting.measured, (1,)
    training, settings = config_of(run), run.about.get("settings")
    if settings is not None:
        return str(settings["recipe"]["metric"]), TABLE_STEPS
    check_own(training.family, run.folder)
    return recipe_of(training, family_of(training)).metric, TABLE_STEPS

"""Evaluates a finished run on any family: `python -m agents.evaluate RUN --family linear`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import tyro

from gym_reml.learner import Learner
from gym_reml.tasks import make_family

from .command import run_command
from .families import Family, family_of, parse_arguments
from .recipes import recipe_for
from .report import compare_with_controls, plot_examples, write_report
from .routing import plot_routing
from .runs import Run
from .train import config_of


@dataclass(frozen=True)
class Config:
    """Compares a run's meta-learner with training from scratch and with its controls."""

    run: tyro.conf.Positional[Path]
    """run directory of a finished training"""
    family: Family | None = None
    """family of tasks; by default the one it was trained on"""
    family_kwargs: str = "{}"
    """further arguments of the family, as JSON"""
    shots: int | None = None
    """support points of a task; by default as in training"""
    tasks: int = 600
    """held-out tasks"""
    seed: int = 0
    """of the first task"""
    full: bool = False
    """also try every composition of layers (best composition, oracle)"""


def unused(folder: Path) -> Path:
    """The folder, or with a number behind its name if it is there already: nothing is overwritten."""
    candidates = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return folder if not folder.exists() else next(path for path in candidates if not path.exists())


def main(config: Config) -> None:
    """Evaluates and reports."""
    torch.set_num_threads(1)
    for name in ("tasks", "seed"):
        if getattr(config, name) < {"tasks": 2, "seed": 0}[name]:
            raise ValueError(f"--{name} {getattr(config, name)}: too small")
    run = Run(config.run)
    trained_on = family_of(config_of(run))
    arguments = parse_arguments(config.family_kwargs)
    if config.family is None or config.family == trained_on.name:
        family = make_family(trained_on, **arguments)
    else:
        family = make_family(config.family, **arguments).replace(shots=trained_on.shots)
    if config.shots is not None:
        family = family.replace(shots=config.shots)
    learner = Learner.load(run.folder / "learner")
    results = compare_with_controls(learner, family, config.tasks, config.seed, full=config.full)
    folder = unused(run.folder / "evaluations" / f"{family.name}-{family.shots}-shot")
    title = f"{family.name}, {family.shots_in_words}, trained on {trained_on.name}"
    write_report(results, recipe_for(family).metric, folder, title=title)
    plot_examples(learner, family, folder / "examples.png", seed=config.seed)
    plot_routing(learner, family, folder / "routing.png", seed=config.seed, title=title, tasks=config.tasks)
    print(f"table, curves, examples and routing: {folder}")


if __name__ == "__main__":
    run_command(main, Config)

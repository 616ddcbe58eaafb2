"""Meta-trains REML and shows what came out: `python -m agents.train`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro
from rich import print as show

from gym_reml.tasks.base import TaskFamily

from .algorithms import ENCODINGS
from .command import check_options, run_command
from .families import Family, family_of
from .problem import Problem
from .recipes import Recipe, recipe_for
from .reml import Reml
from .report import compare_with_controls, plot_examples, write_report
from .routing import plot_routing
from .runs import Run

if TYPE_CHECKING:
    Algorithm = str
else:
    # The command line lists the choices, whatever they are by now.
    Algorithm = Literal[tuple(ENCODINGS)]


@dataclass(frozen=True)
class Config:
    """Meta-trains an agent and a pool of layers on a family of tasks.

    What is left out follows from the family.
    """

    family: Family = "sinusoid"
    """family of tasks"""
    family_kwargs: str = "{}"
    """further arguments of the family, as JSON, such as '{"domains": ["identity", "inverted"]}'"""
    shots: int | None = None
    """support points of a task (per class where there are classes)"""
    algorithm: Algorithm = "PPO"
    """SB3 or sb3-contrib algorithm of the agent"""
    total_steps: int | None = None
    """environment steps of the agent"""
    bootstrap_iterations: int | None = None
    """rounds of the bootstrap"""
    n_envs: int | None = None
    """environments side by side"""
    seed: int = 0
    """of everything"""
    evaluation_tasks: int = 300
    """held-out tasks of the final table"""
    run: Path | None = None
    """run directory; by default a new one in runs/"""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """go on with an interrupted run; all other arguments are taken from it"""


def recipe_of(config: Config, family: TaskFamily) -> Recipe:
    """The family's recipe with the configuration's changes."""
    check_options(config, total_steps=1, bootstrap_iterations=1, n_envs=1, evaluation_tasks=2)
    recipe = recipe_for(family)
    if config.seed < 0:
        raise ValueError(f"--seed {config.seed}: must not be negative")
    return replace(
        recipe,
        total_steps=config.total_steps or recipe.total_steps,
        bootstrap_iterations=config.bootstrap_iterations or recipe.bootstrap_iterations,
        n_envs=config.n_envs or recipe.n_envs,
    )


def problem_of(config: Config) -> Problem:
    """The meta-training problem that the configuration names."""
    family = family_of(config)
    recipe = recipe_of(config, family)
    return Problem(family, recipe, recipe.tasks, config.seed)


def config_of(run: Run) -> Config:
    """The configuration a run was started with."""
    stored = dict(run.config)
    return Config(**(stored | {"run": run.folder, "resume": None}))


def main(config: Config) -> None:
    """Trains, or goes on training, and reports."""
    torch.set_num_threads(1)
    start = time.monotonic()
    resumed = Run(config.resume) if config.resume is not None else None
    if resumed is not None:
        config = config_of(resumed)
    problem = problem_of(config)
    run = resumed or Run.create(config.run, config, f"{config.family}-{config.algorithm}")
    show(f"run directory: {run.folder} (after an interruption: python -m agents.train --resume {run.folder})")
    learner = Reml(run, problem, config.algorithm).train()
    show(f"trained in {time.monotonic() - start:.0f} s; evaluating on {config.evaluation_tasks} held-out tasks")
    family = problem.family
    results = compare_with_controls(learner, family, config.evaluation_tasks, seed=0, full=True)
    title = f"{family.name}, {family.shots_in_words}, held-out tasks"
    write_report(results, problem.recipe.metric, run.folder / "results", title=title)
    plot_examples(learner, family, run.folder / "results" / "examples.png", seed=0)
    plot_routing(
        learner, family, run.folder / "results" / "routing.png", seed=0, title=title, tasks=config.evaluation_tasks
    )
    show(f"table, curves, examples and routing: {run.folder / 'results'}; done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run_command(main, Config)

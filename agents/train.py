"""Meta-trains REML and shows what came out: `python -m agents.train`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich import print as show

from agents.algorithms import ENCODINGS
from agents.recipes import Recipe, recipe_for
from agents.reml import Reml
from agents.report import compare_with_controls, plot_examples, write_report
from agents.runs import Run
from gym_reml.tasks import FAMILIES, make_family
from gym_reml.tasks.base import TaskFamily

Algorithm = Literal[tuple(ENCODINGS)]  # type: ignore[valid-type]
Family = Literal[tuple(FAMILIES)]  # type: ignore[valid-type]


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
    n_envs: int = 128
    """environments side by side"""
    seed: int = 0
    """of everything"""
    evaluation_tasks: int = 300
    """held-out tasks of the final table"""
    run: Path | None = None
    """run directory; by default a new one in runs/"""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """go on with an interrupted run; all other arguments are taken from it"""


def family_of(config: Config) -> TaskFamily:
    """The family that the configuration names."""
    family = make_family(config.family, **json.loads(config.family_kwargs))
    return family.replace(shots=config.shots or recipe_for(family).shots)


def recipe_of(config: Config, family: TaskFamily) -> Recipe:
    """The family's recipe with the configuration's changes."""
    recipe = recipe_for(family)
    return replace(
        recipe,
        total_steps=config.total_steps or recipe.total_steps,
        bootstrap_iterations=config.bootstrap_iterations or recipe.bootstrap_iterations,
    )


def config_of(run: Run) -> Config:
    """The configuration a run was started with."""
    stored = dict(run.config)
    return Config(**(stored | {"run": run.folder, "resume": None}))


def main(config: Config) -> None:
    """Trains, or goes on training, and reports."""
    torch.set_num_threads(1)
    start = time.monotonic()
    if config.resume is not None:
        run = Run(config.resume)
        config = config_of(run)
        family = family_of(config)
    else:
        family = family_of(config)
        run = Run.create(config.run, config, f"{config.family}-{config.algorithm}")
    recipe = recipe_of(config, family)
    show(f"run directory: {run.folder} (after an interruption: python -m agents.train --resume {run.folder})")
    learner = Reml(run, family, recipe, config.algorithm, config.n_envs, config.seed).train()
    show(f"trained in {time.monotonic() - start:.0f} s; evaluating on {config.evaluation_tasks} held-out tasks")
    results = compare_with_controls(learner, family, config.evaluation_tasks, seed=0, full=True)
    title = f"{family.name}, {family.shots} shot{'s' if family.shots > 1 else ''}, held-out tasks"
    write_report(results, recipe.metric, run.folder / "results", title=title)
    plot_examples(learner, family, run.folder / "results" / "examples.png", seed=0)
    show(f"table, curves and examples: {run.folder / 'results'}; done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Config))

"""Meta-trains REML and shows what came out: `python -m agents.train`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from rich import print as show

from gym_reml.files import write_folder
from gym_reml.tasks.base import TaskFamily

from .algorithms import ENCODINGS, WITH_LEARNING_RATE, encoding_of, full_settings
from .bootstraps import learning_options
from .command import check_options, default_is, program, run_command
from .designs import DESIGNS
from .families import FamilyChoice, check_own, family_of, implied_by_family
from .problem import Problem
from .recipes import Recipe, RecipeOptions, recipe_for
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
class Config(RecipeOptions, FamilyChoice):
    """Meta-trains an agent and a pool of layers on a family of tasks.

    Defaults depend on the family.
    """

    algorithm: Algorithm = "PPO"
    """SB3 or sb3-contrib algorithm of the agent"""
    seed: int = 0
    """of everything"""
    evaluation_tasks: int = 300
    """held-out tasks of the final table"""
    run: Annotated[Path | None, default_is("a new one in runs/")] = None
    """run directory"""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: a new run)")] = None
    """go on with an interrupted run; all other arguments are taken from it"""

    def implied(self) -> dict[str, str]:
        """What the family implies, for `--help`."""
        recipe, shots = implied_by_family(self)
        recipe = RecipeOptions(rates=self.rates).applied(recipe)
        found = RecipeOptions.of(recipe) | {"shots": shots}
        return {
            name: f"{'none' if value is None else value}, by the family {self.family}" for name, value in found.items()
        }


def recipe_of(config: Config, family: TaskFamily) -> Recipe:
    """The family's recipe with the configuration's changes."""
    check_options(config, evaluation_tasks=2, seed=0)
    if config.agent_learning_rate is not None and config.algorithm not in WITH_LEARNING_RATE:
        raise ValueError(f"--agent-learning-rate {config.agent_learning_rate}: {config.algorithm} takes none")
    return config.applied(recipe_for(family))


def problem_of(config: Config) -> Problem:
    """The meta-training problem that the configuration names."""
    family = family_of(config)
    recipe = recipe_of(config, family)
    return Problem(family, recipe, recipe.tasks, config.seed)


def config_of(run: Run) -> Config:
    """The configuration a run was started with."""
    return replace(run.options(Config), run=run.folder, resume=None)


def settings_used(config: Config, problem: Problem) -> dict[str, Any]:
    """What a configuration comes to, for config.json."""
    recipe, family = problem.recipe, problem.training_family
    design = DESIGNS[recipe.design]
    return {
        "family": {"name": family.name, "class": f"{type(family).__module__}.{type(family).__qualname__}"}
        | {"fingerprint": family.fingerprint}
        | {field.name: getattr(family, field.name) for field in fields(family)},
        "recipe": asdict(recipe),
        "environment": recipe.arguments(encoding_of(config.algorithm, design)) | {"reward": recipe.reward},
        "learn_kwargs": asdict(learning_options(recipe, recipe.pool_learning_rate, config.seed)),
        "algorithm": full_settings(config.algorithm, design, recipe.n_envs, recipe.agent_learning_rate),
    }


def main(config: Config) -> None:
    """Trains, or goes on training, and reports."""
    torch.set_num_threads(1)
    start = time.monotonic()
    resumed = Run(config.resume) if config.resume is not None else None
    if resumed is not None:
        named, config = config.family, config_of(resumed)
        if config.family != named:
            check_own(config.family, resumed.folder)
    problem = problem_of(config)
    label = f"{problem.family.name}-{config.algorithm}"
    # As they came out, so that a run goes on by them whatever a later version's recipes are.
    shots = problem.family.shots if isinstance(problem.family.shots, int) else config.shots
    used = replace(config, **RecipeOptions.of(problem.recipe), shots=shots)
    run = resumed or Run.create(config.run, used, label, settings_used(config, problem))
    print(f"run directory: {run.folder} (after an interruption: {program('train')} --resume {run.folder})")
    learner = Reml(run, problem, config.algorithm).train()
    show(f"trained in {time.monotonic() - start:.0f} s; evaluating on {config.evaluation_tasks} held-out tasks")
    family = problem.family
    results = compare_with_controls(learner, family, config.evaluation_tasks, seed=0, full=True)
    title = f"{family.name}, {family.shots_in_words}, held-out tasks"
    with write_folder(run.folder / "results") as folder:
        write_report(results, problem.recipe.metric, folder, title=title)
        plot_examples(learner, family, folder / "examples.png", seed=0)
        plot_routing(learner, family, folder / "routing.png", seed=0, title=title, tasks=config.evaluation_tasks)
    show(f"table, curves, examples and routing: {run.folder / 'results'}; done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run_command(main, Config)

"""Meta-trains REML, or trains an agent of another environment, and shows its results: `python -m agents.train`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich import print as show

from gym_reml.files import write_folder, write_text

from .comparison import siblings
from .comparison.averages import average
from .pages.report import compare_with_controls, plot_examples, write_report
from .pages.routing import plot_routing
from .pools.bootstraps import learning_options
from .problems.families import check_own
from .problems.problem import Problem
from .problems.recipes import RecipeOptions
from .reml.algorithms import encoding_of, full_settings
from .reml.configuration import BUILD, Config, config_of, problem_of
from .reml.designs import DESIGNS
from .reml.training import Reml
from .runs.command_line import program, run_command
from .runs.pieces import Piece
from .runs.run import Run
from .runs.workers import check_none_failed, run_all
from .tuning.setting import SETTINGS


def settings_used(config: Config, problem: Problem) -> dict[str, Any]:
    """The resulting settings of a configuration, for config.json."""
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


def options(arguments: Sequence[str]) -> type[Any]:
    """The options of the environment that `--env` names, or of the run that `--resume` names."""
    given = dict(pairwise(word for argument in arguments for word in argument.split("=", 1)))
    named = given.get("--env", BUILD)
    if "--resume" in given:
        # What is wrong with the folder is said where the run is gone on with.
        with suppress(OSError, ValueError):
            named = Run(Path(given["--resume"])).config.get("env", BUILD)
    return siblings.Config if named in SETTINGS else Config


@dataclass(frozen=True)
class Seed(Piece):
    """The run of one seed among several.

    Attributes:
        config: of all.
        root: run directory of all.
        seed: of this one.
    """

    config: Config | siblings.Config
    root: Path
    seed: int

    def __str__(self) -> str:
        return f"seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.root / f"seed-{self.seed}"

    @property
    def training(self) -> Path:
        """Its run directory, as a run of its own would have it."""
        return self.folder / "training"

    @property
    def finished(self) -> bool:
        """Whether its results are there."""
        return (self.training / "results").is_dir()

    def moved(self, root: Path) -> Seed:
        """The same run in another run directory."""
        return replace(self, root=root)

    def work(self) -> float:
        """Trains, or continues training, and reports; returns the seconds."""
        start = time.monotonic()
        begun = (self.training / "config.json").is_file()
        run, resume = (None, self.training) if begun else (self.training, None)
        train(replace(self.config, seed=self.seed, seeds=1, run=run, resume=resume))
        return time.monotonic() - start


def main(config: Config | siblings.Config) -> None:
    """Trains, or continues training, and reports."""
    resumed = Run(config.resume) if config.resume is not None else None
    seeds = config.seeds if resumed is None else resumed.config.get("seeds", 1)
    config.check_seeds(seeds)
    if seeds == 1:
        train(config)
    else:
        train_seeds(config, resumed)


def train_seeds(config: Config | siblings.Config, resumed: Run | None) -> None:
    """Trains all seeds of a new run directory, or those that are left of an old one, and averages their tables."""
    given = config
    if resumed is not None:
        config = replace(resumed.options(type(given)), ray=given.ray)
        if config.family is not None and config.family != given.family:
            check_own(config.family, resumed.folder)
        if isinstance(config, Config) and isinstance(given, Config):
            config = replace(config, device=given.device or config.device)
    if isinstance(config, siblings.Config):
        config.jobs(Path())
    else:
        problem_of(config)
    one = replace(config, run=None, workers=1, ray=None)
    run = resumed or Run.create(config.run, one, f"{config.env}-{config.seeds}-seeds")
    pieces = [Seed(one, run.folder, config.seed + number) for number in range(config.seeds)]
    left = [piece for piece in pieces if not piece.finished]
    print(f"run directory: {run.folder} ({len(left)} of {len(pieces)} runs left to do)")
    print(f"after an interruption: {program('train')} --resume {run.folder}", flush=True)
    failed = run_all(left, given.workers, given.ray)
    finished = [Run(piece.training) for piece in pieces if piece.finished]
    if finished:
        text = average(finished)
        write_text(run.folder / "average.md", f"{text}\n")
        print(f"\n{text}")
    check_none_failed(failed)


def train(config: Config | siblings.Config) -> None:
    """Trains a single seed, or continues training, and reports."""
    if isinstance(config, siblings.Config):
        siblings.train(config)
        return
    torch.set_num_threads(1)
    start = time.monotonic()
    resumed = Run(config.resume) if config.resume is not None else None
    if resumed is not None:
        named, config = config.family, config_of(resumed, config.device)
        if config.family != named:
            check_own(config.family, resumed.folder)
    problem = problem_of(config)
    label = f"{problem.family.name}-{config.algorithm}"
    # The resulting settings, so that a run continues with them even if a later version has other recipes.
    shots = problem.family.shots if isinstance(problem.family.shots, int) else config.shots
    used = replace(config, **RecipeOptions.of(problem.recipe), shots=shots, run=None, device=problem.device)
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
    run_command(main, options(sys.argv[1:]))

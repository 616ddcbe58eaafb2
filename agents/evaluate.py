"""Evaluates a finished run or a saved learner on any family: `python -m agents.evaluate RUN --family linear`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import torch

from gym_reml.files import file_name, write_folder

from .pages.report import compare_with_controls, plot_examples, write_report
from .pages.routing import plot_routing
from .problems.recipes import recipe_for
from .reml.choice import LearnerChoice
from .runs.command_line import check_options, default_is, run_command


@dataclass(frozen=True)
class Config(LearnerChoice):
    """Compares a meta-learner with training from scratch and with its controls."""

    tasks: int = 600
    """held-out tasks"""
    seed: int = 0
    """of the first task"""
    full: bool = False
    """also try every composition of layers (best composition, oracle)"""
    out: Annotated[Path | None, default_is("a new one in RUN/evaluations")] = None
    """folder to write to"""


def unused(folder: Path) -> Path:
    """The folder, or with a number behind its name if it is there already: nothing is overwritten."""
    candidates = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return folder if not folder.exists() else next(path for path in candidates if not path.exists())


def main(config: Config) -> None:
    """Evaluates and reports."""
    torch.set_num_threads(1)
    check_options(config, tasks=2, seed=0)
    (learner, family), trained = config.learner_and_family(), config.trained_on()
    results = compare_with_controls(learner, family, config.tasks, config.seed, full=config.full)
    name = file_name(f"{family.name}-{family.shots_in_words.removesuffix('s')}".replace(" ", "-"))
    if config.out is not None and config.out.exists():
        raise FileExistsError(f"{config.out}: exists already; choose another --out")
    folder = config.out or unused(config.run / "evaluations" / name)
    title = f"{family.name}, {family.shots_in_words}" + ("" if trained is None else f", trained on {trained.family}")
    with write_folder(folder) as part:
        write_report(results, recipe_for(family).metric, part, title=title)
        plot_examples(learner, family, part / "examples.png", seed=config.seed)
        plot_routing(learner, family, part / "routing.png", seed=config.seed, title=title, tasks=config.tasks)
    print(f"table, curves, examples and routing: {folder}")


if __name__ == "__main__":
    run_command(main, Config)

"""Evaluates a finished run or a saved learner on any family: `python -m agents.evaluate RUN --family linear`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import torch
import tyro
from gymnasium.spaces import flatdim

from gym_reml.envs.setup import make_setup
from gym_reml.files import file_name, write_folder
from gym_reml.learner import Learner
from gym_reml.tasks.base import TaskFamily

from .command import check_options, default_is, run_command
from .families import FamilyChoice, FamilyOrNone, check_own, family_of, named_family, parse_arguments
from .recipes import recipe_for
from .report import compare_with_controls, plot_examples, write_report
from .routing import plot_routing
from .runs import Run
from .train import Config as Training
from .train import config_of


@dataclass(frozen=True)
class LearnerChoice:
    """A configuration that names a trained learner, and a family for it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory of a finished training, or the folder of a saved learner"""
    family: Annotated[FamilyOrNone, default_is("the one it was trained on, which RUN must tell")] = None
    """family of tasks, or MODULE:FAMILY"""
    family_kwargs: str = "{}"
    """further arguments of the family, as JSON"""
    shots: Annotated[int | None, default_is("as in training")] = None
    """support points of a task"""

    def trained_on(self) -> Training | None:
        """What the learner was trained on, if its folder or the run directory around it tells."""
        for folder in (self.run, self.run.resolve().parent):
            if (folder / "config.json").is_file():
                return config_of(Run(folder))
        return None

    def learner(self) -> Learner:
        """The learner.

        Raises:
            FileNotFoundError: neither a run directory nor a learner.
            ValueError: a run that is not finished, or a damaged learner.
        """
        if not self.run.is_dir():
            raise FileNotFoundError(f"{self.run}: no such folder")
        if not (self.run / "config.json").is_file():
            return Learner.load(self.run)
        Run(self.run)
        if not (self.run / "learner").is_dir():
            raise FileNotFoundError(f"{self.run}: has no learner yet; finish the training by --resume {self.run}")
        return Learner.load(self.run / "learner")

    def chosen_family(self) -> TaskFamily:
        """The family to play.

        Raises:
            ValueError: none is named, and the folder tells none, or names code that is not the user's.
        """
        trained, arguments = self.trained_on(), parse_arguments(self.family_kwargs)
        if trained is None:
            if self.family is None:
                raise ValueError(f"--family: must be given, as {self.run} does not tell what it was trained on")
            return family_of(FamilyChoice(self.family, self.family_kwargs, self.shots))
        shots = trained.shots if self.shots is None else self.shots
        if self.family is None or (self.family != trained.family and shots is None):
            assert trained.run is not None
            check_own(trained.family, trained.run)
        if self.family in (None, trained.family):
            family = named_family(trained.family, parse_arguments(trained.family_kwargs) | arguments)
        else:
            family = named_family(self.family, arguments)
        return family.replace(shots=family_of(trained).shots if shots is None else shots)

    def learner_and_family(self) -> tuple[Learner, TaskFamily]:
        """Both, which fit each other.

        Raises:
            ValueError: the learner was trained on other observations.
        """
        learner, family = self.learner(), self.chosen_family()
        shown = flatdim(make_setup(1, family=family, pool=learner.pool, **learner.arguments).space)
        taken = getattr(learner.policy, "observation_space", None)
        if taken is not None and flatdim(taken) != shown:
            raise ValueError(
                f"--family {self.family}: {family.name} shows an agent {shown} numbers, and this one was trained on "
                f"{flatdim(taken)}; it can play families of the kind that it was trained on"
            )
        return learner, family


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

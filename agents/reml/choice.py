"""Which trained learner to run, on which family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from gymnasium.spaces import flatdim

from gym_reml.envs.training.setup import make_setup
from gym_reml.evaluation import MetaLearner, trained
from gym_reml.tasks.base import TaskFamily

from ..problems.families import FamilyChoice, FamilyOrNone, check_own, family_of, named_family, parse_arguments
from ..runs.command_line import default_is
from ..runs.run import Run
from .configuration import Config as RunConfig
from .configuration import config_of


@dataclass(frozen=True)
class LearnerChoice:
    """A configuration that names a trained learner, and a family for it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory of a finished run, the folder of a saved learner, or the name of one that the package ships, which
    then names a folder here"""
    family: Annotated[FamilyOrNone, default_is("the one it was trained on, which RUN must hold")] = None
    """family of tasks, or MODULE:FAMILY"""
    family_kwargs: str = "{}"
    """further arguments of the family, as JSON"""
    shots: Annotated[int | None, default_is("as in training")] = None
    """support points of a task"""

    def trained_on(self) -> RunConfig | None:
        """What the learner was trained on, if its folder or the run directory around it holds a config.json."""
        for folder in (self.run, self.run.resolve().parent):
            if (folder / "config.json").is_file():
                return config_of(Run(folder))
        return None

    @property
    def packaged(self) -> str | None:
        """The name of the packaged learner that is meant, unless there is a run or a learner in such a folder."""
        name, own = self.run.as_posix(), any((self.run / file).is_file() for file in ("config.json", "learner.pt"))
        return name if name in trained.names() and not own else None

    def learner(self) -> MetaLearner:
        """The learner.

        Raises:
            FileNotFoundError: neither a run directory nor a learner.
            ValueError: a run that is not finished, or a damaged learner.
        """
        if self.packaged is not None:
            return trained.load(self.packaged)
        if not self.run.is_dir():
            choices = ", ".join(trained.names())
            raise FileNotFoundError(f"{self.run}: no such folder, and no learner of the package ({choices})")
        if not (self.run / "config.json").is_file():
            return MetaLearner.load(self.run)
        Run(self.run)
        if not (self.run / "learner").is_dir():
            raise FileNotFoundError(f"{self.run}: has no learner yet; finish the run by --resume {self.run}")
        return MetaLearner.load(self.run / "learner")

    def chosen_family(self) -> TaskFamily:
        """The family to play.

        Raises:
            ValueError: none is named, and the folder holds none, or names code that is not the user's.
        """
        config, arguments = self.trained_on(), parse_arguments(self.family_kwargs)
        if config is None:
            if self.packaged is not None:
                about = trained.about(self.packaged)
                shots = about["shots"] if self.shots is None else self.shots
                return family_of(FamilyChoice(self.family or about["family"], self.family_kwargs, shots))
            if self.family is None:
                raise ValueError(f"--family: must be given, as {self.run} does not tell what it was trained on")
            return family_of(FamilyChoice(self.family, self.family_kwargs, self.shots))
        shots = config.shots if self.shots is None else self.shots
        if self.family is None or (self.family != config.family and shots is None):
            assert config.run is not None
            check_own(config.family, config.run)
        if self.family in (None, config.family):
            family = named_family(config.family, parse_arguments(config.family_kwargs) | arguments)
        else:
            family = named_family(self.family, arguments)
        return family.replace(shots=family_of(config).shots if shots is None else shots)

    def learner_and_family(self) -> tuple[MetaLearner, TaskFamily]:
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
                f"{flatdim(taken)}; it runs on families of the kind that it was trained on"
            )
        return learner, family

"""The options of a training run of REML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gym_reml.envs.common.devices import find_device
from gym_reml.tasks.base import TaskFamily

from ..problems.families import FamilyChoice, family_of, implied_by_family
from ..problems.problem import Problem
from ..problems.recipes import Recipe, RecipeOptions, recipe_for
from ..runs.command_line import check_options, default_is
from ..runs.run import Run
from ..runs.seeds import SeedOptions
from ..tuning.setting import SETTINGS
from .algorithms import ENCODINGS, WITH_LEARNING_RATE

BUILD = "NetBuild-v0"
ENVS = (BUILD, *SETTINGS)

if TYPE_CHECKING:
    Algorithm = str
    EnvName = str
else:
    # The command line lists the choices, whatever they are by now.
    Algorithm = Literal[tuple(ENCODINGS)]
    EnvName = Literal[ENVS]


@dataclass(frozen=True)
class Config(SeedOptions, RecipeOptions, FamilyChoice):
    """Meta-trains an agent and a pool of layers on a family of tasks (REML).

    Defaults depend on the family, and --help prints them.
    """

    env: EnvName = BUILD
    """what the agent decides; of other environments than this one, `--env NAME --help` shows the options"""
    algorithm: Algorithm = "PPO"
    """SB3 or sb3-contrib algorithm of the agent"""
    seed: int = 0
    """of everything"""
    evaluation_tasks: int = 300
    """held-out tasks of the final table"""
    device: Annotated[str | None, default_is("cpu")] = None
    """any torch device, for the networks and what changes the pool; the agent stays on the CPU"""
    run: Annotated[Path | None, default_is("a new one in runs/")] = None
    """run directory"""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: a new run)")] = None
    """go on with an interrupted run; all other arguments are taken from it, but what it runs on"""

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
    """The meta-training problem that the configuration names.

    Raises:
        ValueError: an option that makes no sense, a device that is not available, or another than the CPU on a cluster.
    """
    family, device = family_of(config), config.device or "cpu"
    recipe = recipe_of(config, family)
    find_device(device)
    if config.ray is not None and device != "cpu":
        raise ValueError(f"--device {device}: a cluster runs a run on each core, so --ray takes the CPU alone")
    return Problem(family, recipe, recipe.tasks, config.seed, device)


def config_of(run: Run, device: str | None = None) -> Config:
    """The configuration a run was started with, on another device if one is given."""
    found = run.options(Config)
    return replace(found, run=run.folder, resume=None, device=device or found.device)

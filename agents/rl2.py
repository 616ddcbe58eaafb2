"""RL² (Duan et al. 2016): a recurrent policy that learns within trials, without gradients: `python -m agents.rl2`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich import print as show

from gym_reml.evaluation import Policy
from gym_reml.evaluation.results import half_width, markdown_table
from gym_reml.evaluation.trials import TrialReturns

from .runs.command_line import check_options, default_is, program, run_command
from .runs.run import Run
from .trials.baselines import baselines
from .trials.play import play
from .trials.rl2.recipes import EnvName, Rl2Recipe, Setting, rl2_recipe_for
from .trials.rl2.training import train


@dataclass(frozen=True)
class Config:
    """Trains RL² on trials of several episodes on one task, and compares it with classical policies on held-out ones.

    Its weights stay as they are within a trial: what it learns of the task is in the LSTM's state.
    """

    env: EnvName = "bandit"
    """trials of what"""
    episodes: int | None = None
    """episodes of a trial, such as pulls of a bandit"""
    arms: int | None = None
    """of a bandit"""
    total_steps: int | None = None
    """environment steps of the run"""
    seed: int = 0
    """of weights and training tasks"""
    evaluation_trials: int = 1000
    """held-out trials of the table"""
    run: Annotated[Path | None, default_is("a new one in runs/")] = None
    """run directory"""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: a new run)")] = None
    """go on with an interrupted run; all other arguments are taken from it"""

    def implied(self) -> dict[str, str]:
        """What the environment implies, for `--help`."""
        usual, setting = Setting.of(self.env), self.setting()
        return {
            "episodes": f"{usual.episodes}, for {self.env}",
            "arms": "none, as only bandits have arms" if usual.arms is None else f"{usual.arms}",
            "total_steps": f"{rl2_recipe_for(setting).total_steps}, for {setting}",
        }

    def setting(self) -> Setting:
        """The trials that the configuration names."""
        return Setting.of(self.env, self.episodes, self.arms)

    def recipe(self) -> Rl2Recipe:
        """The setting's recipe, with the configured number of steps.

        Raises:
            ValueError: a number that makes no sense.
        """
        check_options(self, total_steps=1, seed=0, evaluation_trials=2)
        recipe = rl2_recipe_for(self.setting())
        return recipe if self.total_steps is None else replace(recipe, total_steps=self.total_steps)


def main(config: Config) -> None:
    """Trains, or continues training, and evaluates it and the classical policies on held-out trials."""
    torch.set_num_threads(1)
    start = time.monotonic()
    resumed = Run(config.resume) if config.resume is not None else None
    if resumed is not None:
        config = replace(resumed.options(Config), run=resumed.folder, resume=None)
    setting, recipe = config.setting(), config.recipe()
    label = f"rl2-{setting.family}-{setting.episodes}"
    used = {"environment": {"id": setting.env_id, **setting.arguments}, "recipe": asdict(recipe)}
    run = resumed or Run.create(config.run, config, label, used)
    print(f"run directory: {run.folder} (after an interruption: {program('rl2')} --resume {run.folder})")
    trained = train(run, setting, recipe, config.seed)
    players: dict[str, Policy] = {"rl2": trained.policy, **baselines(setting, config.seed)}
    found = {name: play(policy, setting, config.evaluation_trials) for name, policy in players.items()}
    show(
        f"\n[bold]{setting}, held-out tasks[/bold]\nreturn of a trial, mean ± 95 % interval over "
        f"{config.evaluation_trials} trials; {trained.steps:,} training steps in {trained.seconds:.0f} s; "
        f"{trained.parameters:,} parameters:\n"
    )
    print(table_of(found))
    show(f"\ndone in {time.monotonic() - start:.0f} s")


def table_of(found: dict[str, TrialReturns]) -> str:
    """A Markdown table: a row a policy; returns of the whole trial, and of its first and last episode."""
    rows = [
        [name, *map(_cell, (returns.total, returns.episodes[:, 0], returns.episodes[:, -1]))]
        for name, returns in found.items()
    ]
    return markdown_table(["policy", "trial", "first episode", "last episode"], rows)


def _cell(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.2f} ± {half_width(values):.2f}"


if __name__ == "__main__":
    run_command(main, Config)

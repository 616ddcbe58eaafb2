"""Meta-SGD (Li et al. 2017): `python -m agents.meta_sgd`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agents.command import run_command
from agents.maml import settings_for
from agents.meta_gradient import meta_learn
from agents.problem import Problem, own_shape
from agents.recipes import multipliers
from agents.rival import RivalConfig
from gym_reml.learner import Learner

STEPS = 5


@dataclass(frozen=True)
class Config(RivalConfig):
    """A learning rate for every weight, meta-learned together with the initial weights."""


def train(problem: Problem) -> Learner:
    """Weights and their rates by the meta-gradient of the loss after five steps, on networks as REML's multipliers."""
    shape = own_shape(multipliers(problem.recipe))
    settings = replace(settings_for(problem, STEPS), rates="weight")
    pool = meta_learn(problem, shape, settings, name="meta_sgd")
    return shape.learner("meta_sgd", pool, problem.recipe.horizon)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)

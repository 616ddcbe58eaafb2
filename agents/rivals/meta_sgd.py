"""Meta-SGD (Li et al. 2017): `python -m agents.rivals.meta_sgd`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gym_reml.evaluation import MetaLearner

from ..problems.problem import NetworkShape, Problem, own_shape, usual_shape
from ..problems.recipes import multipliers
from ..runs.command_line import run_command
from .maml import settings_for
from .meta_gradient import meta_learn
from .rival import RivalConfig


@dataclass(frozen=True)
class Config(RivalConfig):
    """A learning rate for every weight, meta-learned together with the initial weights."""

    steps: int = 5
    """inner steps trained for"""
    shape: Literal["usual", "own"] = "own"
    """the literature's network (1-40-40-1 for functions), or one as large as those of REML's multipliers"""

    def learner(self, problem: Problem) -> MetaLearner:
        """What this command trains."""
        shape = usual_shape(problem) if self.shape == "usual" else own_shape(multipliers(problem.recipe))
        return train(problem, self.steps, shape)


def train(problem: Problem, steps: int, shape: NetworkShape) -> MetaLearner:
    """Weights and their rates by the meta-gradient of the loss after the last step."""
    settings = replace(settings_for(problem, steps), rates="weight")
    pool = meta_learn(problem, shape, settings, name="meta_sgd")
    return shape.learner("meta_sgd", pool, problem.recipe.horizon)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(config.learner)


if __name__ == "__main__":
    run_command(main, Config)

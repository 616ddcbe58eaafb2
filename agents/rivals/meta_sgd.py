"""Meta-SGD (Li et al. 2017): `python -m agents.rivals.meta_sgd`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gym_reml.evaluation import MetaLearner

from ..problems.problem import NetworkShape, Problem, own_shape, usual_shape
from ..runs.command_line import run_command
from . import maml
from .meta_gradient import MetaGradientConfig, Settings, learner_of


@dataclass(frozen=True)
class Config(MetaGradientConfig):
    """A learning rate for every weight, meta-learned together with the initial weights."""

    per_step: bool = False
    """rates of their own for every step trained for"""
    shape: Literal["usual", "own"] = "own"
    """the literature's network (1-40-40-1 for functions), or one as large as REML's"""

    def learner(self, problem: Problem) -> MetaLearner:
        """What this command trains."""
        shape = usual_shape(problem) if self.shape == "usual" else own_shape(problem.recipe)
        settings = self.changed(settings_for(problem, self.steps, self.per_step))
        return learner_of(problem, shape, settings, "meta_sgd")


def train(problem: Problem, steps: int, shape: NetworkShape, per_step: bool = False) -> MetaLearner:
    """Weights and their rates, the same for all steps or not, by the meta-gradient of the loss after the last step."""
    return learner_of(problem, shape, settings_for(problem, steps, per_step), "meta_sgd")


def settings_for(problem: Problem, steps: int, per_step: bool = False) -> Settings:
    """MAML's, with a rate for each weight, or for each weight and step."""
    return replace(maml.settings_for(problem, steps), rates="weight_step" if per_step else "weight")


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(config.learner)


if __name__ == "__main__":
    run_command(main, Config)

"""First-order MAML (Finn et al. 2017, section 5.2): `python -m agents.rivals.fomaml`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gym_reml.evaluation import MetaLearner

from ..problems.problem import Problem, usual_shape
from ..runs.command_line import run_command
from .maml import settings_for
from .meta_gradient import learner_of
from .rival import RivalConfig

STEPS = 5


@dataclass(frozen=True)
class Config(RivalConfig):
    """MAML whose meta-gradient takes the inner gradients as constants."""


def train(problem: Problem) -> MetaLearner:
    """As MAML trained for five steps, with first-order meta-gradients (which still teach a learned rate)."""
    shape = usual_shape(problem)
    settings = replace(settings_for(problem, STEPS), rule="fomaml")
    return learner_of(problem, shape, settings, "fomaml")


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)

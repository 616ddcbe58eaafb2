"""Training from scratch, the step size tuned on validation tasks: `python -m agents.rivals.scratch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gym_reml.evaluation import MetaLearner
from gym_reml.evaluation.controls import SCRATCH_STEPS

from ..problems.problem import Problem, usual_shape
from ..runs.command_line import run_command
from .rival import RivalConfig, tuned_learner


@dataclass(frozen=True)
class Config(RivalConfig):
    """Fresh weights for every task: what a meta-learner that learned nothing would do."""

    draws_tasks: ClassVar[bool] = False


def train(problem: Problem) -> MetaLearner:
    """Random weights with the best step size; no training task is drawn."""
    shape = usual_shape(problem)
    return tuned_learner("scratch", shape.fresh(problem, adapt_stem=True), problem, shape, SCRATCH_STEPS)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)

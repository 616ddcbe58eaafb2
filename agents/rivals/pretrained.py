"""Pretraining on all tasks at once, then finetuning: `python -m agents.rivals.pretrained`."""

from __future__ import annotations

from dataclasses import dataclass

from gym_reml.evaluation import MetaLearner

from ..pools.pretraining import weights
from ..problems.problem import Problem, usual_shape
from ..runs.command_line import run_command
from .rival import RivalConfig, tuned_learner

FINETUNING_STEPS = (1e-4, 1.0)


@dataclass(frozen=True)
class Config(RivalConfig):
    """One network for all tasks, trained to do well before any adaptation, then finetuned with the best step size."""


def train(problem: Problem) -> MetaLearner:
    """Weights with the least query loss after no step; the step size of finetuning is tuned on validation tasks."""
    shape, pool = usual_shape(problem), weights(problem)
    return tuned_learner("pretrained", pool, problem, shape, FINETUNING_STEPS)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)

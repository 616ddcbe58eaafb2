"""Reptile (Nichol et al. 2018): `python -m agents.rivals.reptile`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gym_reml.evaluation import MetaLearner

from ..problems.problem import Problem, usual_shape
from ..runs.command_line import run_command
from .meta_gradient import Settings, meta_learn
from .rival import RivalConfig, tuned_learner

STEPS = 10
FINETUNING_STEPS = (1e-3, 1.0)


@dataclass(frozen=True)
class Config(RivalConfig):
    """Initial weights that move towards where each task's gradient steps lead, without any meta-gradient."""


def train(problem: Problem) -> MetaLearner:
    """Every training task shows as many points as others get in support and query set together, as published."""
    shape = usual_shape(problem)
    if problem.functions:
        shots = problem.family.most_shots + problem.family.queries
        trained_on = replace(problem, family=problem.family.replace(shots=shots))
        settings = Settings(STEPS, rule="reptile", rate=0.02, learning_rate=0.5)
    else:
        trained_on, settings = problem, Settings(STEPS, rule="reptile", rate=0.2, learning_rate=0.5)
    # Only what episodes adapt moves at all, so the stem must be adapted too.
    pool = shape.fresh(problem, adapt_stem=True)
    meta_learn(trained_on, shape, settings, pool=pool, name="reptile")
    return tuned_learner("reptile", pool, problem, shape, FINETUNING_STEPS)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)

"""What optimizers are compared on, and how a trained one, whatever it is, is judged on the test problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import print as show

from ..tuning.training import TuningAgent, TuningRecipe
from .descent import Descent, descend
from .problems import ProblemFamily
from .step_sizes import HORIZON, descend_by, train_agent
from .training import MetaRecipe, TrainedRule, train

JUDGED = (200, 2000)
"""Steps after which losses are compared: four unrolls of meta-training, and ten times as many."""

Judge = Callable[[ProblemFamily, int, Sequence[int]], Descent]
"""How an optimizer does on so many test problems of a kind after these numbers of steps."""


@dataclass(frozen=True)
class OptimizerProblem:
    """What an entrant of a comparison is given.

    Attributes:
        tasks: training problems that it may draw; None for as many as its recipe has.
        seed: of weights and training problems.
    """

    tasks: int | None
    seed: int


def judge(trained: TrainedRule | TuningAgent | Judge, kind: ProblemFamily, count: int) -> Descent:
    """The losses on `count` test problems after the steps JUDGED."""
    if isinstance(trained, TrainedRule):
        return descend(trained.rule, kind.tested(count), JUDGED)
    if isinstance(trained, TuningAgent):
        return descend_by(trained.policy, kind.tested(count), JUDGED)
    return trained(kind, count, JUDGED)


def train_rule(name: str, problem: OptimizerProblem, folder: Path) -> TrainedRule:
    """Trains a rule of `table.RULES`, on at most as many problems as it may draw; says how many these were."""
    recipe = MetaRecipe()
    if problem.tasks is None:
        return train(name, recipe, seed=problem.seed, folder=folder)
    trained = train(name, recipe.with_at_most(problem.tasks), seed=problem.seed, folder=folder)
    show(
        f"{name}: drew {trained.problems:,} of at most {problem.tasks:,} training problems, because each is trained on "
        "for a random number of updates, whose total is fixed"
    )
    return trained


def train_step_sizes(problem: OptimizerProblem, folder: Path) -> TuningAgent:
    """Trains the agent that sets step sizes."""
    return train_agent(TuningRecipe().limited(problem.tasks, HORIZON), seed=problem.seed, folder=folder)

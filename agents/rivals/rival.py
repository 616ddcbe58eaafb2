"""Shared by the commands of all competing methods: the tasks, their number, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from rich import print as show

from gym_reml.evaluation import Ensemble, MetaLearner, evaluate
from gym_reml.evaluation.controls import tune_step
from gym_reml.evaluation.protocol import at_most
from gym_reml.evaluation.results import table
from gym_reml.networks.weights import CLIP
from gym_reml.pool import LayerPool

from ..problems.families import FamilyChoice, family_of, implied_by_family
from ..problems.problem import POLICY_STEPS, TABLE_STEPS, NetworkShape, Problem, count_parameters
from ..problems.recipes import Clip, OptimizerName, clip_of, recipe_for
from ..runs.command_line import check_options

VALIDATION_TASKS, POLICY_VALIDATION_TASKS = 200, 40

Method = Callable[[Problem], MetaLearner | Ensemble]
"""Trains a meta-learner: takes a problem, and returns a policy and a trained pool."""


def at_most_tasks(tasks: int, most: int | None) -> int:
    """The smaller of both; None is no limit."""
    return tasks if most is None else min(tasks, most)


@dataclass(frozen=True)
class RivalConfig(FamilyChoice):
    """The options of every competing method's command."""

    draws_tasks: ClassVar[bool] = True
    """Whether the method learns from training tasks."""
    most_tasks: ClassVar[int | None] = None
    """How many it draws by default if REML draws more; None for as many as REML."""

    tasks: int | None = None
    """training tasks drawn in all"""
    seed: int = 0
    """of weights and tasks"""
    clip: Clip = CLIP
    """norm at which the networks' gradients are clipped"""
    optimizer: OptimizerName = "sgd"
    """takes the networks' gradient steps"""
    evaluation_tasks: int = 600
    """held-out tasks of the table"""

    def implied(self) -> dict[str, str]:
        """What the family implies, for `--help`."""
        recipe, shots = implied_by_family(self)
        tasks = at_most_tasks(recipe.tasks, self.most_tasks)
        drawn = "as many as" if tasks == recipe.tasks else f"of the {recipe.tasks} that"
        return {
            "shots": f"{shots}, by the family {self.family}",
            "tasks": f"{tasks}, {drawn} REML draws of the family {self.family}",
        }

    def problem(self) -> Problem:
        """The problem that the configuration names."""
        family = family_of(self)
        recipe = replace(recipe_for(family), clip=clip_of(self.clip), optimizer=self.optimizer)
        tasks = at_most_tasks(recipe.tasks, self.most_tasks) if self.tasks is None else self.tasks
        return Problem(family, recipe.scaled(tasks), tasks, self.seed)

    def show(self, train: Method) -> None:
        """Trains, and prints how the learner does on held-out tasks."""
        torch.set_num_threads(1)
        check_options(self, tasks=1, seed=0, evaluation_tasks=2)
        problem, start = self.problem(), time.monotonic()
        learner = train(problem)
        seconds = time.monotonic() - start
        family, metric = problem.family, problem.recipe.metric
        drawn = problem.tasks if self.draws_tasks else 0
        steps = TABLE_STEPS if family.fixed_data else POLICY_STEPS
        tasks = at_most(self.evaluation_tasks, family, "test")
        result = evaluate(learner, family, tasks=tasks, steps=steps)
        show(
            f"\n[bold]{family.name}, {family.shots_in_words}, held-out tasks[/bold]\n{metric} on the query set, mean ± "
            f"95 % interval over {tasks} tasks (median); {drawn:,} training tasks in "
            f"{seconds:.0f} s; {count_parameters(learner):,} parameters:\n"
        )
        print(table([result], metric, steps=steps))


def tuned_learner(
    name: str, pool: LayerPool, problem: Problem, shape: NetworkShape, limits: tuple[float, float]
) -> MetaLearner:
    """The learner with these initial weights and the step size, within the limits, that is best on validation tasks."""
    arguments: dict[str, Any] = shape.arguments(problem.recipe.horizon)
    low, high = limits
    arguments |= {"min_step": low, "max_step": high}
    tasks = VALIDATION_TASKS if problem.family.fixed_data else POLICY_VALIDATION_TASKS
    return tune_step(name, pool, arguments=arguments, family=problem.family, tuning_tasks=tasks)[0]

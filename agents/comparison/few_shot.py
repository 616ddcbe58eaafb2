"""Benchmarks of few-shot tasks: networks adapt to each, and are judged after some steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gym_reml.evaluation import Ensemble, MetaLearner, Result, controls, evaluate
from gym_reml.evaluation.plans import Plan, plan_learner
from gym_reml.networks.work import counting_work
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.policies.base import PolicyFamily

from ..pools.reinforcement import with_inner_rates
from ..problems.problem import TABLE_STEPS, Problem, count_parameters
from ..problems.recipes import recipe_for
from ..rivals.rival import at_most_tasks
from .base import Benchmark, Findings
from .step_rules import HandRule, RegressionRule, rule_learner

FEW_TUNING_TASKS = 50


@dataclass(frozen=True)
class Test:
    """What a trained learner is tested on.

    Attributes:
        family: the tasks.
        split: what tables say of it beside its name: "heldout", "train" or None.
    """

    family: TaskFamily
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class FewShotBenchmark(Benchmark):
    """Meta-learners that train on the same family and adapt to the same held-out tasks.

    Attributes:
        shots: the numbers of shots it is run with, each on its own.
        train: the family trained on, for a number of shots.
        tested: by the name that tables use, for a number of shots.
        tasks: default number of training tasks, None for as many as the recipe draws.
        judged: after how many steps networks are judged.
        changes: to the recipe of the family.
        all_controls: whether those controls are evaluated too that try compositions, constants and blinded policies.
    """

    shots: tuple[int, ...]
    train: Callable[[int], TaskFamily]
    tested: Callable[[int], dict[str, Test]]
    tasks: int | None = None
    judged: tuple[int, ...] = TABLE_STEPS
    changes: Mapping[str, Any] = field(default_factory=dict)
    all_controls: bool = False

    def variants(self, shots: int | None = None) -> tuple[int, ...]:
        return self.shots if shots is None else (shots,)

    def label(self, variant: int) -> str:
        return f"{variant} shots"

    def folder(self, variant: int) -> str:
        return f"{variant}-shot"

    def option(self, variant: int) -> str:
        return f"--shots {variant}"

    def metric(self, variant: int) -> str:
        return recipe_for(self.train(variant)).metric

    def steps(self, variant: int) -> tuple[int, ...]:
        return self.judged

    def tests(self, variant: int) -> dict[str, str | None]:
        return {name: test.split for name, test in self.tested(variant).items()}

    def measure(
        self,
        name: str,
        variant: int,
        *,
        seed: int,
        tasks: int | None,
        evaluation_tasks: int,
        folder: Path,
        device: str = "cpu",
    ) -> Findings:
        entrant, family = self.entrant(name), self.train(variant)
        recipe = replace(recipe_for(family), **self.changes)
        if tasks is None:
            tasks = at_most_tasks(self.tasks or recipe.tasks, entrant.most_tasks)
        problem = Problem(family, recipe.scaled(tasks), tasks, seed, device)
        start = time.monotonic()
        with counting_work() as work:
            learner = _named(entrant.train(problem, folder), name)
        seconds = time.monotonic() - start
        results: dict[str, list[Result]] = {}
        for test_name, test in self.tested(variant).items():
            if not entrant.draws_tasks:
                # Nothing was learned from the training tasks, so its step size may suit those that it is tested on.
                learner = _named(entrant.train(replace(problem, family=test.family), folder), name)
            protocol: dict[str, Any] = {"steps": self.judged, "tasks": evaluation_tasks}
            results[test_name] = [evaluate(learner, test.family, **protocol)]
            if entrant.controlled:
                results[test_name] += self._controls(learner, problem, test.family, protocol)
        return Findings(
            results,
            seconds,
            count_parameters(learner),
            tasks if entrant.draws_tasks else 0,
            work.inner_gradients if work.whole else None,
            work.environment_steps if work.whole else None,
        )

    def _controls(
        self, learner: MetaLearner | Ensemble, problem: Problem, family: TaskFamily, protocol: dict[str, Any]
    ) -> list[Result]:
        """What else could decide in the learner's place, on the same tasks."""
        if not isinstance(learner, MetaLearner):
            return []
        if isinstance(family, PolicyFamily):
            rules = _other_steps(learner, family, problem)
            return [evaluate(rule, family, **protocol) for rule in rules]
        random = controls.random_layer(learner, family, **protocol)
        if not self.all_controls:
            return [random]
        few = min(FEW_TUNING_TASKS, protocol["tasks"])
        return [
            random,
            controls.constant_step(learner, family, tuning_tasks=few, **protocol),
            controls.shuffled_observation(learner, family, **protocol),
            controls.zeroed_observation(learner, family, **protocol),
            controls.best_composition(learner, family, tuning_tasks=few, **protocol),
        ]


def _named(learner: Any, name: str) -> MetaLearner | Ensemble:
    """What an entrant trained, under the entrant's name; a ValueError if it is no learner."""
    if not isinstance(learner, MetaLearner | Ensemble):
        raise ValueError(f"--learners {name}: must return a MetaLearner or an Ensemble, found {learner!r}")
    return replace(learner, name=name)


def _other_steps(learner: MetaLearner, family: PolicyFamily, problem: Problem) -> list[MetaLearner]:
    """The learner's pool under other choices of the steps: a rule by hand, a regression, and neutral ones.

    The last only if an agent chose. A pool without rates takes those of MAML-RL, and their range.
    """
    pool, arguments, known = learner.pool, dict(learner.arguments), family.replace(shots=problem.family.shots)
    if not pool.rates:
        pool = with_inner_rates(pool)
        arguments = {name: value for name, value in arguments.items() if name not in ("min_step", "max_step")}
    base = replace(learner, pool=pool, arguments=arguments)
    neutral = plan_learner(f"{learner.name}/neutral_steps", pool, arguments, (), 0.0)
    return [
        *([] if isinstance(learner.policy, Plan) else [neutral]),
        rule_learner(f"{learner.name}/hand_rule", base, HandRule(base, family)),
        rule_learner(f"{learner.name}/regression", base, RegressionRule(base, known, problem.seed)),
    ]

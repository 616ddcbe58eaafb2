"""Every meta-learner of the comparison, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gym_reml.evaluation import Ensemble, MetaLearner

from ..problems.problem import Problem, own_shape, usual_shape
from ..problems.recipes import multipliers, policy_layers, still_pool
from ..reml.training import Reml
from ..rivals import bouncegrad, fomaml, maml, maml_plus_plus, maml_rl, meta_sgd, pretrained, reptile, router, scratch
from ..runs.run import Run

Train = Callable[[Problem, Path], "MetaLearner | Ensemble"]
"""From a problem and a folder for whatever the training writes to a meta-learner."""


def _maml(steps: int, own: bool) -> Train:
    def train(problem: Problem, folder: Path) -> MetaLearner:
        shape = own_shape(problem.recipe) if own else usual_shape(problem)
        return maml.train(problem, steps, shape)

    return train


def _matched(problem: Problem, folder: Path) -> MetaLearner:
    return maml.train(problem, 5, maml.matched_shape(problem), "maml_matched")


def _maml_plus_plus(problem: Problem, folder: Path) -> MetaLearner | Ensemble:
    return maml_plus_plus.with_better_statistics(maml_plus_plus.train(problem), problem)


def _reml(problem: Problem, folder: Path) -> MetaLearner:
    return Reml(_run(problem, folder), problem).train()


def _multipliers(problem: Problem, folder: Path) -> MetaLearner:
    problem = replace(problem, recipe=multipliers(problem.recipe).scaled(problem.tasks))
    return Reml(_run(problem, folder), problem, name="reml_multipliers").train()


def _random_pool(problem: Problem, folder: Path) -> MetaLearner:
    frozen = replace(problem.recipe, bootstrap="none", routing_share=1.0, settled_share=0.0)
    problem = replace(problem, recipe=frozen.scaled(problem.tasks))
    return Reml(_run(problem, folder), problem, name="reml/random_pool").train()


def _maml_rl(surrogate: str, outer: str, name: str) -> Train:
    return lambda problem, folder: maml_rl.train(problem, surrogate, outer, name)


def _maml_rl_pool(problem: Problem, folder: Path) -> MetaLearner:
    problem = replace(problem, recipe=still_pool(problem.recipe).scaled(problem.tasks))
    return Reml(_run(problem, folder), problem, name="reml/maml_rl_pool").train()


def _pretrained_pool(problem: Problem, folder: Path) -> MetaLearner:
    recipe = replace(still_pool(problem.recipe), bootstrap="pretraining")
    problem = replace(problem, recipe=recipe.scaled(problem.tasks))
    return Reml(_run(problem, folder), problem, name="reml/pretrained_pool").train()


def _policy_layers(problem: Problem, folder: Path) -> MetaLearner:
    problem = replace(problem, recipe=policy_layers(problem.recipe).scaled(problem.tasks))
    return Reml(_run(problem, folder), problem, name="reml/layers").train()


def _run(problem: Problem, folder: Path) -> Run:
    return Run.begun(folder, problem.recipe, "reml")


SUPERVISED: dict[str, Train] = {
    "scratch": lambda problem, folder: scratch.train(problem),
    "pretrained": lambda problem, folder: pretrained.train(problem),
    "maml_1": _maml(1, own=False),
    "maml_1_own_shape": _maml(1, own=True),
    "maml_5": _maml(5, own=False),
    "maml_5_own_shape": _maml(5, own=True),
    "maml_matched": _matched,
    "fomaml": lambda problem, folder: fomaml.train(problem),
    "reptile": lambda problem, folder: reptile.train(problem),
    "meta_sgd": lambda problem, folder: meta_sgd.train(problem, 5, own_shape(multipliers(problem.recipe))),
    "maml_plus_plus": _maml_plus_plus,
    "bouncegrad": lambda problem, folder: bouncegrad.train(problem),
    "router": lambda problem, folder: router.train(problem),
    "reml": _reml,
    "reml_multipliers": _multipliers,
    "reml/random_pool": _random_pool,
}
"""What is compared on functions and images. A new meta-learner is a file of `agents/` and a row here."""

POLICIES: dict[str, Train] = {
    "random": lambda problem, folder: replace(scratch.train(problem), name="random"),
    "pretrained": SUPERVISED["pretrained"],
    "maml_rl": _maml_rl("lvc", "adam", "maml_rl"),
    "maml_rl/trpo": _maml_rl("lvc", "trpo", "maml_rl/trpo"),
    "maml_rl/dice": _maml_rl("dice", "adam", "maml_rl/dice"),
    "maml_rl/first_order": _maml_rl("first_order", "adam", "maml_rl/first_order"),
    "maml_rl/trpo_first_order": _maml_rl("first_order", "trpo", "maml_rl/trpo_first_order"),
    "reml": _reml,
    "reml/maml_rl_pool": _maml_rl_pool,
    "reml/pretrained_pool": _pretrained_pool,
    "reml/layers": _policy_layers,
}
"""What is compared where networks are policies."""

LEARNERS = SUPERVISED | POLICIES
"""All of them."""

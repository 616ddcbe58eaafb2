"""The settings that were tried for the tuned methods, and the ones that were chosen on validation tasks.

One procedure for all: eight settings each, trained on the same tasks with one seed, of which the one with the lowest
geometric mean of the errors after 1, 5 and 10 steps on 1,000 validation tasks is taken, for all numbers of shots; of
REML the second best, which its recipe was before.
`python -m agents.tune` runs it, and keeps what it found in `docs/results/attempts.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gym_reml.evaluation import Ensemble, MetaLearner
from gym_reml.networks.weights import CLIP

from ..problems.problem import NetworkShape, Problem
from ..problems.recipes import BOOTSTRAP_TASKS, FUNCTIONS, META_BATCH, Recipe
from ..reml.training import Reml
from ..rivals import maml_plus_plus
from ..rivals.meta_gradient import Settings, learner_of
from ..runs.run import Run

Train = Callable[[Problem, Path], MetaLearner | Ensemble]
"""Takes a problem and a folder for the files of training, and returns what is evaluated."""

STEPS = 5
WEIGHTS: dict[str, tuple[float, ...] | None] = {
    "last step": None,
    "first step .1": (0.1, 0.0, 0.0, 0.0, 0.9),
    "first step .3": (0.3, 0.0, 0.0, 0.0, 0.7),
    "every step": (0.3, 0.1, 0.1, 0.1, 0.4),
}
"""Weights of the query loss after each step, by what settings call them."""


JUDGED = (1, 5, 10)
"""Steps after which settings are judged."""


def score(errors: Sequence[float]) -> float:
    """What settings are compared by: the geometric mean of positive errors."""
    return math.exp(sum(map(math.log, errors)) / len(errors))


@dataclass(frozen=True)
class Grid:
    """The settings of a method.

    Attributes:
        settings: how to train, by what pages say of the setting.
        chosen: the name of the best one.
    """

    settings: Mapping[str, Train]
    chosen: str

    @property
    def best(self) -> Train:
        """The chosen setting."""
        return self.settings[self.chosen]


def reml(change: Callable[[Recipe], Recipe] | None = None) -> Train:
    """REML by the problem's recipe, or by what `change` makes of it within the same budget of tasks."""

    def run(problem: Problem, folder: Path) -> MetaLearner:
        if change is not None:
            problem = replace(problem, recipe=change(problem.recipe).scaled(problem.tasks))
        return Reml(Run.begun(folder, problem.recipe, "reml"), problem).train()

    return run


def _clip_in_words(clip: float | None) -> str:
    return "no clip" if clip is None else f"clip {clip:g}"


def _by_meta_gradient(name: str, kind: str, rates: str, weights: str, clip: float | None) -> tuple[str, Train]:
    """A setting of MAML or Meta-SGD on networks as large as REML's."""

    def train(problem: Problem, folder: Path) -> MetaLearner:
        shape = NetworkShape(problem.recipe.width, problem.recipe.depth, kind, clip)
        return learner_of(problem, shape, Settings(STEPS, rates=rates, step_weights=WEIGHTS[weights]), name)

    return f"{kind} layers, rates per {rates.replace('_', ' and ')}, {weights}, {_clip_in_words(clip)}", train


def _maml_plus_plus(kind: str, weights: str | None, clip: float | None) -> tuple[str, Train]:
    """A setting of MAML++: its own weights of the steps where none are named."""
    parts = maml_plus_plus.Config()
    if weights is not None:
        parts = replace(parts, multi_step_loss=False, step_weights=WEIGHTS[weights] or ())

    def train(problem: Problem, folder: Path) -> MetaLearner | Ensemble:
        shape = NetworkShape(problem.recipe.width, problem.recipe.depth, kind, clip)
        return maml_plus_plus.train(problem, parts, shape)

    return f"{kind} layers, {weights or 'MSL'}, {_clip_in_words(clip)}", train


def _reml(specialists: int, tasks: int, rate: float, weights: str, clip: float | None) -> tuple[str, Train]:
    """A setting of REML on learned rates: specialists, joint learning, what counts in the pool's loss, and the clip."""
    chosen = WEIGHTS[weights] or (*[0.0] * (STEPS - 1), 1.0)

    def change(recipe: Recipe) -> Recipe:
        _, once = BOOTSTRAP_TASKS[recipe.bootstrap]
        return replace(
            recipe,
            layers=specialists + 1,
            # As many tasks in all as the recipe draws.
            bootstrap_iterations=(FUNCTIONS.tasks - tasks - once) // META_BATCH,
            total_steps=tasks * recipe.horizon,
            pool_learning_rate=rate,
            step_weights=chosen,
            clip=clip,
        )

    return f"{specialists} specialists, {tasks:,} tasks together at {rate:g}, {weights}, {_clip_in_words(clip)}", reml(
        change
    )


def _maml_settings() -> dict[str, Train]:
    rows = (
        ("residual", "scalar", "last step", CLIP),
        ("residual", "scalar", "every step", None),
        ("residual", "tensor", "every step", None),
        ("residual", "step", "last step", CLIP),
        ("residual", "step", "every step", CLIP),
        ("residual", "step", "every step", None),
        ("residual", "step", "first step .1", None),
        ("relu", "step", "every step", None),
    )
    return dict(_by_meta_gradient("maml", *row) for row in rows)


def _meta_sgd_settings() -> dict[str, Train]:
    rows = (
        ("weight", "last step", CLIP),
        ("weight", "first step .1", CLIP),
        ("weight", "first step .1", None),
        ("weight_step", "last step", CLIP),
        ("weight_step", "first step .1", CLIP),
        ("weight_step", "first step .1", None),
        ("weight_step", "first step .3", None),
        ("weight_step", "every step", None),
    )
    return dict(_by_meta_gradient("meta_sgd", "relu", *row) for row in rows)


def _maml_plus_plus_settings() -> dict[str, Train]:
    rows = [
        (kind, weights, clip)
        for kind in ("residual", "relu")
        for weights in (None, "every step")
        for clip in (CLIP, None)
    ]
    return dict(_maml_plus_plus(*row) for row in rows)


def _reml_settings() -> dict[str, Train]:
    rows = (
        (16, 111_000, 2e-3, "first step .1", CLIP),
        (8, 111_000, 2e-3, "first step .1", CLIP),
        (32, 111_000, 2e-3, "first step .1", CLIP),
        (16, 111_000, 4e-3, "first step .1", CLIP),
        (16, 131_000, 4e-3, "first step .1", CLIP),
        (16, 111_000, 2e-3, "first step .1", None),
        (16, 111_000, 2e-3, "first step .3", CLIP),
        (16, 111_000, 2e-3, "last step", CLIP),
    )
    return dict(_reml(*row) for row in rows)


GRIDS: dict[str, Grid] = {
    "maml": Grid(_maml_settings(), "residual layers, rates per step, every step, no clip"),
    "meta_sgd": Grid(_meta_sgd_settings(), "relu layers, rates per weight and step, first step .1, no clip"),
    "maml_plus_plus": Grid(_maml_plus_plus_settings(), "relu layers, every step, no clip"),
    "reml": Grid(_reml_settings(), "16 specialists, 111,000 tasks together at 0.002, first step .1, clip 10"),
}
"""The tuned methods by name. A method is a row here."""

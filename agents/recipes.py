"""What REML needs to know about a kind of family: the shape of its networks and the budget of every phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gym_reml.tasks.base import TaskFamily


@dataclass(frozen=True)
class Recipe:
    """Settings of meta-training; `docs/formulation.md` tells where they come from.

    Attributes:
        metric: what tables and plots show.
        shots: support points when none are asked for.
        augmentation: arguments of the family in training only.
        depth, horizon, layers, width, layer_kind, initial_layers: of the environment.
        bootstrap: "competition" or "clusters".
        bootstrap_iterations: rounds of it.
        total_steps: environment steps of the agent.
        routing_share: share of them on the frozen pool, before both learn.
        settled_share: share of them at the end, when the pool is frozen again.
        step_weights: of the pool's meta-loss.
        pool_learning_rate, rates_learning_rate, agent_learning_rate: Adam's; they fall to zero in the phases that use
            them.
    """

    metric: str
    shots: int
    augmentation: Mapping[str, Any]
    depth: int
    horizon: int
    layers: int
    width: int
    layer_kind: str
    initial_layers: tuple[int, ...]
    bootstrap: str
    bootstrap_iterations: int
    total_steps: int
    routing_share: float
    settled_share: float
    step_weights: tuple[float, ...]
    pool_learning_rate: float
    rates_learning_rate: float
    agent_learning_rate: float


FUNCTIONS = Recipe(
    metric="mse",
    shots=5,
    augmentation={},
    depth=2,
    horizon=5,
    layers=8,
    width=40,
    layer_kind="residual",
    initial_layers=(),
    bootstrap="competition",
    bootstrap_iterations=2000,
    total_steps=800_000,
    routing_share=0.225,
    settled_share=0.1,
    step_weights=(0.3, 0.1, 0.1, 0.1, 0.4),
    pool_learning_rate=3e-3,
    rates_learning_rate=1e-2,
    agent_learning_rate=1e-3,
)

IMAGES = Recipe(
    metric="accuracy",
    shots=1,
    augmentation={"shifts": 2},
    depth=2,
    horizon=5,
    layers=5,
    width=64,
    layer_kind="layer_norm",
    initial_layers=(1,),
    bootstrap="clusters",
    bootstrap_iterations=1500,
    total_steps=60_000,
    routing_share=0.9,
    settled_share=0.1,
    step_weights=(0.1, 0.1, 0.1, 0.1, 0.6),
    pool_learning_rate=1e-2,
    rates_learning_rate=1e-2,
    agent_learning_rate=1e-3,
)


def recipe_for(family: TaskFamily) -> Recipe:
    """The recipe that fits the family: classes of wide inputs are built on MAML, functions on competition."""
    return IMAGES if family.exchangeable_outputs else FUNCTIONS


def augmented(family: TaskFamily, recipe: Recipe) -> TaskFamily:
    """The family as training sees it, with those augmentations that it knows."""
    known = {option.name for option in fields(family)}
    return family.replace(**{name: value for name, value in recipe.augmentation.items() if name in known})

"""What REML needs to know about a kind of family: the shape of its networks and the budget of every phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.policy import PolicyFamily

COMPETITION_TASKS, META_BATCH = 12, 32
"""Tasks of a round of the competition, and of a meta-update."""

CLUSTERING_TASKS = 1000
"""Tasks that clusters are found on."""


POLICY_BATCH, POLICY_CLUSTERING_TASKS = 40, 400
"""Tasks of a meta-update of policies, and those that their clusters are found on."""

BOOTSTRAP_TASKS = {
    "none": (0, 0),
    "competition": (COMPETITION_TASKS, 0),
    "clusters": (META_BATCH, CLUSTERING_TASKS),
    "policy_gradient": (POLICY_BATCH, 0),
    "policy_clusters": (POLICY_BATCH, POLICY_CLUSTERING_TASKS),
    "pretraining": (POLICY_BATCH, 0),
}
"""Tasks that each bootstrap draws: in every round, and once."""


@dataclass(frozen=True)
class Recipe:
    """Settings of meta-training; `docs/formulation.md` tells where they come from.

    Attributes:
        metric: what tables and plots show.
        shots: support points when none are asked for.
        augmentation: arguments of the family in training only.
        depth, horizon, layers, width, layer_kind, initial_layers: of the environment.
        rates: granularity of the pool's learned step sizes, or None for none.
        initial_rate: what they start from.
        bootstrap: "competition", "clusters", "policy_gradient" (MAML-RL), "policy_clusters", "pretraining" or "none".
        bootstrap_iterations: rounds of it.
        clustered_share: share of them with one layer for each cluster (clusters).
        bootstrap_learning_rate: Adam's.
        clustered_learning_rate: Adam's with clusters, falling anew; None: the fall before goes on.
        total_steps: environment steps of the agent.
        routing_share: share of them on the frozen pool, before both learn.
        settled_share: share of them at the end, when the pool is frozen again.
        step_weights: of the pool's meta-loss.
        reward: what the agent is paid for, as the environment takes it.
        pool_learning_rate: Adam's beside the agent, for weights and rates.
        constants_learning_rate: Adam's beside the agent for outputs that depend on no input; None: that of the weights.
        agent_learning_rate: Adam's. All learning rates fall to zero in the phases that use them.
        n_envs: environments side by side.
        design: what the agent looks like, of `agents.designs.DESIGNS`.
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
    rates: str | None
    initial_rate: float
    bootstrap: str
    bootstrap_iterations: int
    clustered_share: float
    bootstrap_learning_rate: float
    clustered_learning_rate: float | None
    total_steps: int
    routing_share: float
    settled_share: float
    step_weights: tuple[float, ...]
    reward: str
    pool_learning_rate: float
    agent_learning_rate: float
    constants_learning_rate: float | None = None
    n_envs: int = 128
    design: str = "layers"

    @property
    def bootstrap_tasks(self) -> int:
        """Training tasks that the bootstrap draws."""
        each, once = BOOTSTRAP_TASKS[self.bootstrap]
        return self.bootstrap_iterations * each + once

    @property
    def first_rounds(self) -> int:
        """Rounds of the bootstrap on the problem's first streams of tasks."""
        clustered = round(self.clustered_share * self.bootstrap_iterations)
        return self.bootstrap_iterations - (clustered if self.bootstrap == "policy_clusters" else 0)

    @property
    def tasks(self) -> int:
        """Training tasks that are drawn in all, one an episode."""
        return self.bootstrap_tasks + self.total_steps // self.horizon

    def scaled(self, tasks: int) -> Recipe:
        """The same recipe with budgets that draw about so many training tasks in all."""
        _, once = BOOTSTRAP_TASKS[self.bootstrap]
        factor = max(tasks - once, 0) / (self.tasks - once)
        return replace(
            self,
            bootstrap_iterations=max(1, round(factor * self.bootstrap_iterations)),
            total_steps=max(1, round(factor * self.total_steps)),
        )

    def arguments(self, action: str) -> dict[str, Any]:
        """The environment's arguments that belong to a learner."""
        return {
            "action": action,
            "depth": self.depth,
            "horizon": self.horizon,
            "initial_layers": list(self.initial_layers),
        }


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
    rates=None,
    initial_rate=1.0,
    bootstrap="competition",
    bootstrap_iterations=2000,
    clustered_share=0.0,
    bootstrap_learning_rate=2e-3,
    clustered_learning_rate=2e-3,
    total_steps=800_000,
    routing_share=0.225,
    settled_share=0.1,
    step_weights=(0.3, 0.1, 0.1, 0.1, 0.4),
    reward="performance",
    pool_learning_rate=3e-3,
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
    rates="step",
    initial_rate=0.4,
    bootstrap="clusters",
    bootstrap_iterations=1810,
    clustered_share=0.5,
    bootstrap_learning_rate=1e-2,
    clustered_learning_rate=None,
    total_steps=10_000,
    routing_share=0.9,
    settled_share=0.1,
    step_weights=(0.0, 0.0, 0.0, 0.0, 1.0),
    reward="performance",
    pool_learning_rate=1e-3,
    agent_learning_rate=1e-3,
)


POLICIES = Recipe(
    metric="return",
    shots=20,
    augmentation={},
    depth=1,
    horizon=4,
    layers=1,
    width=100,
    layer_kind="relu",
    initial_layers=(1,),
    rates="step",
    initial_rate=0.5,
    bootstrap="policy_gradient",
    bootstrap_iterations=150,
    clustered_share=0.0,
    bootstrap_learning_rate=5e-3,
    clustered_learning_rate=None,
    total_steps=16_000,
    routing_share=0.3,
    settled_share=0.1,
    step_weights=(1.0, 1.0, 0.5),
    reward="performance",
    pool_learning_rate=3e-3,
    agent_learning_rate=3e-3,
    constants_learning_rate=3e-2,
    n_envs=40,
    design="steps",
)


def recipe_for(family: TaskFamily) -> Recipe:
    """The recipe that fits the family: policies and classes are built on MAML, functions on competition."""
    if isinstance(family, PolicyFamily):
        return POLICIES
    return IMAGES if family.exchangeable_outputs else FUNCTIONS


def still_pool(recipe: Recipe) -> Recipe:
    """REML on policies where only the agent learns once the pool is there, which takes fewer of the tasks."""
    return replace(recipe, bootstrap_iterations=200, total_steps=8_000, routing_share=1.0, settled_share=0.0)


def policy_layers(recipe: Recipe) -> Recipe:
    """REML on policies with more to choose from: a residual layer for each of eight kinds of tasks."""
    return replace(
        recipe,
        depth=2,
        layers=9,
        layer_kind="residual",
        bootstrap="policy_clusters",
        clustered_share=0.4,
    )


def multipliers(recipe: Recipe) -> Recipe:
    """REML on learned rates: Meta-SGD's weights and rates to begin with, and the agent's steps multiply the rates."""
    if recipe.rates is not None:
        return recipe
    return replace(
        recipe,
        layers=9,
        layer_kind="relu",
        initial_layers=(1,),
        rates="weight",
        initial_rate=0.01,
        bootstrap="clusters",
        bootstrap_iterations=2900,
        clustered_share=0.35,
        bootstrap_learning_rate=3e-3,
        clustered_learning_rate=3e-3,
        total_steps=450_000,
        routing_share=0.0,
        settled_share=0.1,
        step_weights=(0.0, 0.0, 0.0, 0.0, 1.0),
        pool_learning_rate=1e-3,
        agent_learning_rate=5e-4,
    )

"""REML's settings for a kind of family: the shape of its networks and the budget of every phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from gym_reml.networks.blocks import BLOCKS
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.networks.weights import CLIP
from gym_reml.pool.rates import RATES
from gym_reml.streams import row_streams
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.mixture import Mixture
from gym_reml.tasks.policies.base import PolicyFamily
from gym_reml.tasks.supervised import Classification, Regression

if TYPE_CHECKING:
    LayerKind = str
    OptimizerName = str
    Rates = str
else:
    # The command line lists the choices, whatever they are by now.
    RATES_OR_NONE, KINDS = ("none", *RATES), (*LAYER_KINDS, *BLOCKS)
    LayerKind, Rates = Literal[KINDS], Literal[RATES_OR_NONE]
    OptimizerName = Literal[tuple(OPTIMIZERS)]

Clip = float | Literal["none"]
"""A norm at which gradients are clipped, on the command line."""

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
    """Settings of REML's meta-training for a kind of family; `docs/formulation.md` says where they come from."""

    metric: str
    """what tables and plots show: "mse", "accuracy" or "return" """
    shots: int
    """default number of support points of a task"""
    augmentation: Mapping[str, Any]
    """arguments of the family in training only"""
    depth: int
    """layers of a network between stem and head"""
    horizon: int
    """gradient steps of an episode"""
    layers: int
    """layers of the pool"""
    width: int
    """units of every layer"""
    layer_kind: str
    """what the pool's layers are, a name of LAYER_KINDS or BLOCKS in `gym_reml.networks`"""
    initial_layers: tuple[int, ...]
    """layers of the pool that are in every network from the start"""
    rates: str | None
    """granularity of the pool's learned step sizes, a name of `gym_reml.pool.rates.RATES`; None for none"""
    initial_rate: float
    """what learned step sizes start from"""
    bootstrap: str
    """how the pool is made before the agent learns, a name of BOOTSTRAP_TASKS"""
    bootstrap_iterations: int
    """rounds of the bootstrap"""
    clustered_share: float
    """share of them with one layer for each cluster of tasks"""
    bootstrap_learning_rate: float
    """Adam's learning rate in the bootstrap"""
    clustered_learning_rate: float | None
    """Adam's learning rate with clusters, annealed anew; None goes on with the annealing of the rounds before"""
    total_steps: int
    """environment steps of the agent"""
    routing_share: float
    """share of them at the beginning, on the frozen pool, before both learn"""
    settled_share: float
    """share of them at the end, when the pool is frozen again"""
    step_weights: tuple[float, ...]
    """weight of the query loss after each step in the pool's meta-loss"""
    reward: str
    """the agent's reward, a name that the environment takes"""
    pool_learning_rate: float
    """Adam's learning rate of the pool beside the agent, for weights and step sizes; annealed to 0"""
    agent_learning_rate: float
    """the agent's learning rate; annealed to 0"""
    clip: float | None = CLIP
    """norm at which the networks' gradients are clipped, None for none"""
    optimizer: str = "sgd"
    """takes the networks' gradient steps"""
    constants_learning_rate: float | None = None
    """Adam's learning rate beside the agent for outputs that depend on no input; None for that of the weights"""
    bootstrap_constants_learning_rate: float | None = None
    """the same in the bootstrap of policies"""
    bootstrap_updates: int = 1
    """updates of a policy that its bootstrap trains through; the return after the last counts"""
    without_rates: Mapping[str, Any] | None = None
    """other settings that go with a pool without learned rates; None where there must be some"""
    n_envs: int = 128
    """environments side by side"""
    design: str = "layers"
    """how the agent is built, a name of `agents.reml.designs.DESIGNS`"""

    @property
    def bootstrap_tasks(self) -> int:
        """Training tasks that the bootstrap draws."""
        each, once = BOOTSTRAP_TASKS[self.bootstrap]
        return self.bootstrap_iterations * each + once

    @property
    def whole(self) -> bool:
        """Whether networks have all their layers from the start, so that none is left to choose."""
        return self.depth == len(self.initial_layers)

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
            "clip": self.clip,
            "optimizer": self.optimizer,
        }


FUNCTIONS = Recipe(
    metric="mse",
    shots=5,
    augmentation={},
    depth=2,
    horizon=5,
    layers=17,
    width=40,
    layer_kind="relu",
    initial_layers=(1,),
    rates="weight_step",
    initial_rate=0.01,
    bootstrap="clusters",
    bootstrap_iterations=2250,
    clustered_share=0.35,
    bootstrap_learning_rate=3e-3,
    clustered_learning_rate=3e-3,
    total_steps=555_000,
    routing_share=0.0,
    settled_share=0.02,
    step_weights=(0.1, 0.0, 0.0, 0.0, 0.9),
    reward="performance",
    pool_learning_rate=2e-3,
    agent_learning_rate=5e-4,
    without_rates={
        "layers": 8,
        "layer_kind": "residual",
        "initial_layers": (),
        "initial_rate": 1.0,
        "bootstrap": "competition",
        "bootstrap_iterations": 2000,
        "clustered_share": 0.0,
        "bootstrap_learning_rate": 2e-3,
        "clustered_learning_rate": None,
        "total_steps": 800_000,
        "routing_share": 0.225,
        "settled_share": 0.1,
        "step_weights": (0.3, 0.1, 0.1, 0.1, 0.4),
        "pool_learning_rate": 3e-3,
        "agent_learning_rate": 1e-3,
    },
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


CONVOLUTIONS: dict[str, Any] = {"layer_kind": "conv", "bootstrap_learning_rate": 3e-3}
"""Changes to IMAGES for convolutional networks."""

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
    bootstrap_iterations=60,
    clustered_share=0.0,
    bootstrap_learning_rate=5e-3,
    clustered_learning_rate=None,
    total_steps=8_000,
    routing_share=0.3,
    settled_share=0.1,
    step_weights=(1.0, 1.0, 0.5),
    reward="performance",
    pool_learning_rate=3e-3,
    agent_learning_rate=3e-3,
    clip=None,
    constants_learning_rate=3e-2,
    bootstrap_constants_learning_rate=4e-2,
    bootstrap_updates=2,
    n_envs=40,
    design="steps",
)


def recipe_for(family: TaskFamily | type[TaskFamily]) -> Recipe:
    """The recipe that fits the family, or its class: policies and classes are built on MAML, functions on competition.

    Tables of a family of the user's own show the usual metric of its kind if it has it, else its first one.
    """
    if issubclass(family if isinstance(family, type) else type(family), PolicyFamily):
        return POLICIES
    recipe = IMAGES if family.exchangeable_outputs else FUNCTIONS
    if isinstance(family, type):
        return recipe
    metric = _metric_of(family, recipe.metric)
    return recipe if metric == recipe.metric else replace(recipe, metric=metric)


def _metric_of(family: TaskFamily, usual: str) -> str:
    """The usual metric, or where a family of the user's own has none such, its first one, or its loss."""
    one = family.members[0] if isinstance(family, Mixture) else family
    if isinstance(one, Regression | Classification):
        return usual
    stream = row_streams(0, one.split)

    def zeros(inputs: Tensor) -> Tensor:
        return inputs.new_zeros((*inputs.shape[:2], one.out_features))

    batch = one.query(one.draw([stream.task]), zeros, [stream.query])
    outputs = zeros(batch.inputs)
    names = list(one.metrics(outputs, batch, one.loss(outputs, batch)))
    return usual if usual in names else (*names, "loss")[0]


def still_pool(recipe: Recipe) -> Recipe:
    """REML on policies where only the agent learns once the pool is there, which takes fewer of the tasks."""
    return replace(recipe, bootstrap_iterations=70, total_steps=6_400, routing_share=1.0, settled_share=0.0)


def untrained_pool(recipe: Recipe) -> Recipe:
    """REML on a pool of random layers that nothing trains."""
    return replace(recipe, bootstrap="none", routing_share=1.0, settled_share=0.0)


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


def plain(recipe: Recipe) -> Recipe:
    """The recipe without learned rates, or the recipe itself where there is none: specialists by competition."""
    if recipe.without_rates is None or recipe.rates is None:
        return recipe
    return replace(recipe, rates=None, **recipe.without_rates)


@dataclass(frozen=True)
class RecipeOptions:
    """The settings of a recipe that are options of a command; None leaves them to the recipe."""

    depth: int | None = None
    """layers of a network between stem and head"""
    width: int | None = None
    """units of every layer"""
    layers: int | None = None
    """layers of the pool"""
    layer_kind: LayerKind | None = None
    """what the pool's layers are"""
    horizon: int | None = None
    """gradient steps of an episode"""
    rates: Rates | None = None
    """learned step sizes of the pool, which the agent multiplies; on functions other defaults change with "none" """
    initial_rate: float | None = None
    """what learned step sizes start from"""
    bootstrap_iterations: int | None = None
    """rounds of the bootstrap"""
    bootstrap_learning_rate: float | None = None
    """Adam's learning rate in the bootstrap"""
    total_steps: int | None = None
    """environment steps of the agent"""
    n_envs: int | None = None
    """environments side by side"""
    clip: Clip | None = None
    """norm at which the networks' gradients are clipped"""
    optimizer: OptimizerName | None = None
    """takes the networks' gradient steps"""
    agent_learning_rate: float | None = None
    """the agent's initial learning rate; annealed to 0"""
    pool_learning_rate: float | None = None
    """Adam's initial learning rate of the pool beside the agent; annealed to 0"""
    routing_share: float | None = None
    """share of the agent's steps on the frozen pool, before both learn"""
    settled_share: float | None = None
    """share of the agent's steps at the end, when the pool is frozen again"""

    @staticmethod
    def of(recipe: Recipe) -> dict[str, Any]:
        """The options that make any recipe of the kind this one, by name; None where it has no use for one."""
        found = {field.name: getattr(recipe, field.name) for field in fields(RecipeOptions)}
        found["rates"] = recipe.rates or "none"
        found["clip"] = recipe.clip or "none"
        if recipe.rates is None:
            found["initial_rate"] = None
        if recipe.whole:
            found["layers"] = None
        return found

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with these settings, and with what follows from them.

        Raises:
            ValueError: a setting that makes no sense, or that the recipe has no use for.
        """
        given = {field.name: getattr(self, field.name) for field in fields(RecipeOptions)}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            _check(f"--{name.replace('_', '-')}", name, value)
        whole = recipe.whole
        if whole and "layers" in given:
            raise ValueError(f"--layers {self.layers}: these networks are whole from the start; use --depth")
        if "rates" in given:
            recipe = _with_rates(recipe, given.pop("rates"))
        if "initial_rate" in given and recipe.rates is None:
            raise ValueError(f"--initial-rate {self.initial_rate}: there are no learned step sizes; use --rates")
        if "horizon" in given:
            given["step_weights"] = _spread(recipe, given["horizon"])
        if whole and "depth" in given:
            given |= {"layers": given["depth"], "initial_layers": tuple(range(1, given["depth"] + 1))}
        if "clip" in given:
            given["clip"] = clip_of(given["clip"])
        changed = replace(recipe, **given)
        kept = len(changed.initial_layers)
        for name, value in (("depth", changed.depth), ("layers", changed.layers)):
            if not whole and value <= kept:
                raise ValueError(f"--{name} {value}: must be at least {kept + 1}: {kept} is there from the start")
        routing, settled = changed.routing_share, changed.settled_share
        if routing + settled > 1.0:
            raise ValueError(f"--routing-share {routing}, --settled-share {settled}: together more than 1")
        return changed


def clip_of(given: Clip) -> float | None:
    """The norm that an option names; None for none.

    Raises:
        ValueError: neither "none" nor a positive number.
    """
    if given != "none" and not 0.0 < float(given) < float("inf"):
        raise ValueError(f"--clip {given}: must be none or a positive number")
    return None if given == "none" else float(given)


def _check(option: str, name: str, value: Any) -> None:
    """Raises a ValueError if the value of a setting makes no sense."""
    if name.endswith("_share"):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{option} {value}: must be from 0 to 1")
    elif name.endswith("_rate"):
        if not 0.0 < value < float("inf"):
            raise ValueError(f"{option} {value}: must be a positive number")
    elif isinstance(value, int) and value < 1:
        raise ValueError(f"{option} {value}: must be at least 1")


def _with_rates(recipe: Recipe, rates: str) -> Recipe:
    """The recipe on such learned step sizes."""
    if rates == recipe.rates:
        return recipe
    if rates == "none" and recipe.without_rates is not None:
        return plain(recipe)
    if rates == "none" or recipe.whole:
        raise ValueError(f"--rates {rates}: the bootstrap of such families needs {recipe.rates!r}")
    return replace(recipe, rates=rates)


def _spread(recipe: Recipe, horizon: int) -> tuple[float, ...]:
    """The weights of the steps for another horizon: the last step keeps its own, those before the last are repeated."""
    *before, last = recipe.step_weights
    if len(recipe.step_weights) < recipe.horizon:
        return recipe.step_weights[:horizon]
    return (*before[: horizon - 1], *before[-1:] * (horizon - 1 - len(before)), last)

"""What every meta-learner of the comparison is given: tasks, a budget of them, a seed, and shapes of networks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gym_reml.evaluation import Ensemble, MetaLearner
from gym_reml.evaluation.plans import plan_learner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.blocks import BLOCKS
from gym_reml.networks.weights import CLIP
from gym_reml.pool import LayerPool
from gym_reml.pool.sources import random_pool
from gym_reml.streams import many_streams
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.policies.base import PolicyFamily

from .recipes import Recipe, plain

TASKS_OF_A_PROBLEM = 1_000_003
"""Seeds of training tasks that one seed of a problem may use without meeting those of another."""


@dataclass(frozen=True)
class Problem:
    """A meta-training problem.

    Attributes:
        family: of the tasks.
        recipe: what is known about its kind; REML's own budgets in it are scaled to `tasks`.
        tasks: how many training tasks may be drawn.
        seed: of weights and tasks.
        device: that networks are computed on.
    """

    family: TaskFamily
    recipe: Recipe
    tasks: int
    seed: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError(f"tasks={self.tasks!r}: must be a positive integer")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed!r}: must not be negative")

    @property
    def functions(self) -> bool:
        """Whether networks are functions to fit: no policies, and no classes whose numbers mean nothing."""
        return not (isinstance(self.family, PolicyFamily) or self.family.exchangeable_outputs)

    @property
    def training_family(self) -> TaskFamily:
        """The family for training, with those of the recipe's augmentations that it has."""
        known = {option.name for option in fields(self.family)}
        changes = {name: value for name, value in self.recipe.augmentation.items() if name in known}
        return self.family.replace(**changes)

    @property
    def plain(self) -> Problem:
        """The same problem with REML's recipe without learned rates, where there is one."""
        return replace(self, recipe=plain(self.recipe).scaled(self.tasks))


@dataclass(frozen=True)
class NetworkShape:
    """Networks that are whole from the start: a stem, `depth` layers and a head.

    Attributes:
        width: units of every hidden layer.
        depth: layers behind the stem; 0 where the stem is a whole network, as that of convolutions is.
        kind: of the layers.
        clip: norm at which gradients of the inner loop are clipped, None for none.
        optimizer: takes the gradient steps.
    """

    width: int
    depth: int
    kind: str
    clip: float | None = CLIP
    optimizer: str = "sgd"

    def fresh(self, problem: Problem, adapt_stem: bool | None = None) -> LayerPool:
        """Random weights of this shape, on the problem's device."""
        pool = random_pool(
            problem.training_family,
            width=self.width,
            layers=self.slots,
            kind=self.kind,
            adapt_stem=adapt_stem,
            seed=problem.seed,
        )
        return pool.to(problem.device)

    @property
    def slots(self) -> int:
        """Slots of the networks, at least one."""
        return max(1, self.depth)

    @property
    def layers(self) -> list[int]:
        """The pool's numbers of the layers, all of which are there from the start."""
        return list(range(1, self.depth + 1))

    def process(
        self, problem: Problem, pool: LayerPool, batch: int, horizon: int, step: float | None = None
    ) -> TrainingMDP:
        """A process that draws `batch` of the problem's tasks at each reset; `step` as for `arguments`."""
        mdp = TrainingMDP(
            batch,
            problem.training_family,
            pool,
            Objective(horizon),
            slots=self.slots,
            initial_layers=self.layers,
            step_range=None if step is None else (step, step),
            clip=self.clip,
            optimizer=self.optimizer,
        )
        mdp.seed(range(batch), many_streams(problem.seed * TASKS_OF_A_PROBLEM, batch, problem.training_family.split))
        return mdp

    def arguments(self, horizon: int, step: float | None = None) -> dict[str, Any]:
        """The environment's arguments for such networks; with a `step`, that is the only step size there is."""
        limits = {} if step is None else {"min_step": step, "max_step": step}
        own = {"depth": self.slots, "initial_layers": self.layers, "clip": self.clip, "optimizer": self.optimizer}
        return {"action": "box", "horizon": horizon} | own | limits

    def learner(self, name: str, pool: LayerPool, horizon: int, step: float | None = None) -> MetaLearner:
        """The learner that takes neutral steps throughout (MAML, and what descends from it)."""
        return plan_learner(name, pool, self.arguments(horizon, step), (), 0.0)


CLASSIC = NetworkShape(width=40, depth=1, kind="relu")
"""MAML's network for the sinusoid, 1-40-40-1 (Finn et al. 2017)."""


def own_shape(recipe: Recipe) -> NetworkShape:
    """Networks as large as those that REML builds."""
    return NetworkShape(recipe.width, recipe.depth, recipe.layer_kind, recipe.clip, recipe.optimizer)


def usual_shape(problem: Problem) -> NetworkShape:
    """What the literature takes: MAML's network for functions, and its four convolutions; or else REML's own shape."""
    shape = own_shape(problem.recipe)
    if problem.functions:
        return replace(CLASSIC, clip=shape.clip, optimizer=shape.optimizer)
    return replace(shape, depth=0) if shape.kind in BLOCKS else shape


def count_parameters(learner: MetaLearner | Ensemble) -> int:
    """Numbers that were learned: the pool's, its rates, and those of a policy that is a network."""
    if isinstance(learner, Ensemble):
        return sum(map(count_parameters, learner.members))
    policy = getattr(learner.policy, "policy", None)
    own = int(np.sum([parameter.numel() for parameter in policy.parameters()])) if policy is not None else 0
    return own + sum(tensor.numel() for tensor in learner.pool.trainable().values())


TABLE_STEPS = (0, 1, 5, 10)
POLICY_STEPS = (0, 1, 2, 3, 4)
"""Updates after which policies are judged: those of MAML's authors."""

"""Random configurations of every environment, each drawn from its number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from gym_reml import REGISTRATIONS
from gym_reml.decisions.losses import LOSSES
from gym_reml.learning.options import RULES
from gym_reml.mdp import objective, training, tuning
from gym_reml.mdp.metrics import METRICS
from gym_reml.networks.blocks import BLOCKS
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.pool.sources import random_pool
from gym_reml.streams import SPLITS
from gym_reml.tasks import FAMILIES, make_family
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.functions.base import Regression1d
from gym_reml.tasks.images.classes import ClassFamily
from gym_reml.tasks.policies.base import PolicyFamily

T = TypeVar("T")

WITH_FILES = ("omniglot", "fashion_mnist", "sign_digits")
"""Families whose data are downloaded; all others are drawn."""

STEP_SIZES = (1e-30, 1e-6, 1e-3, 0.3, 4.0, 1e3, 1e6, 1e30)
"""Smallest and largest step sizes, which are to train nothing, or to make every network diverge."""

MODES = ("NextStep", "SameStep", "Disabled")
MODULES = "modules"
"""The kind of pools that are made of a user's own modules."""


@dataclass(frozen=True)
class Configuration:
    """An environment and how it is made.

    Attributes:
        number: that it is drawn from.
        env_id: of the environment.
        rows: None for the single environment, else the number of rows of the vector environment.
        arguments: of the environment.
        pool: arguments of `make_pool`; None where the environment has none.
    """

    number: int
    env_id: str
    rows: int | None
    arguments: dict[str, Any]
    pool: dict[str, Any] | None

    def make(self) -> Any:
        """The environment, with a pool of its own.

        Raises:
            ValueError: what was drawn does not go together; the message says what.
        """
        arguments = dict(self.arguments)
        if self.pool is not None:
            kwargs = arguments.get("family_kwargs", {})
            family = make_family(arguments["family"], **kwargs)
            arguments["pool"] = make_pool(family, **self.pool)
        if self.rows is None:
            return gym.make(self.env_id, disable_env_checker=True, **arguments)
        return gym.make_vec(self.env_id, num_envs=self.rows, vectorization_mode="vector_entry_point", **arguments)


def configuration(number: int) -> Configuration:
    """The configuration of that number; ids take turns, so that each of them is met equally often."""
    draw = Draw(np.random.default_rng([number, 0]))
    env_id = tuple(REGISTRATIONS)[number % len(REGISTRATIONS)]
    kind = env_id.partition("-")[0]
    for end in ("MultiDiscrete", "Discrete", "Hybrid", "Box"):
        kind = kind.removesuffix(end)
    rows = draw.one(None, None, 1, 2, 3, 5, 17)
    arguments, pool = ARGUMENTS[kind](draw)
    if rows is not None:
        arguments["autoreset_mode"] = draw.one(*MODES)
        arguments["max_episode_steps"] = draw.one(None, None, 1, 3)
    if kind == "NetBuild":
        # From draws of its own: configurations of earlier reports, all by torch, keep their other arguments.
        arguments["core"] = Draw(np.random.default_rng([number, 2])).one("torch", "auto")
    return Configuration(number, env_id, rows, arguments, pool)


class Draw:
    """Random choices."""

    def __init__(self, generator: np.random.Generator) -> None:
        """Takes the generator, the only source of randomness."""
        self.generator = generator

    def one(self, *choices: T) -> T:
        """One of these."""
        return choices[int(self.generator.integers(len(choices)))]

    def up_to(self, most: int, least: int = 1) -> int:
        """An integer."""
        return int(self.generator.integers(least, most + 1))

    def several(self, choices: Sequence[T], most: int | None = None) -> tuple[T, ...]:
        """Different ones of these, at least one."""
        count = self.up_to(min(len(choices), most or len(choices)))
        return tuple(choices[int(place)] for place in self.generator.permutation(len(choices))[:count])

    def pair(self, choices: Sequence[float]) -> tuple[float, float]:
        """Two of these, the smaller one first."""
        low, high = sorted((self.one(*choices), self.one(*choices)))
        return low, high

    def some(self, **arguments: Any) -> dict[str, Any]:
        """Each of the arguments or its default, with equal probabilities."""
        return {name: value for name, value in arguments.items() if self.one(True, False)}


# -- networks that are built from a pool -------------------------------------------------------------------------------


def _net_build(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    name = draw.one(*(name for name in FAMILIES if name not in WITH_FILES))
    kind = FAMILIES[name]
    family_kwargs: dict[str, Any] = {"split": draw.one(*SPLITS)}
    functions = [name for name, kind in FAMILIES.items() if issubclass(kind, Regression1d)]
    policies = issubclass(kind, PolicyFamily)
    if name == "mixture":
        family_kwargs["members"] = list(draw.several(functions, 4))
    elif policies:
        family_kwargs["steps"] = draw.up_to(4)
    elif issubclass(kind, ClassFamily):
        family_kwargs["ways"] = draw.up_to(3, 2)
    varying = kind.varying_shots and draw.one(True, False)
    # A query set has as many images of each class.
    queries = draw.up_to(6) * family_kwargs.get("ways", 1)
    shots: Any = tuple(sorted((draw.up_to(3), draw.up_to(6, 3)))) if varying else draw.up_to(6)
    depth, horizon, layers = draw.up_to(4), draw.up_to(4), draw.up_to(4)
    step_range = draw.pair(STEP_SIZES)
    rule = draw.one(None, *RULES)
    arguments = {
        "family": name,
        "family_kwargs": family_kwargs,
        "shots": shots,
        "queries": queries,
        "depth": depth,
        "initial_layers": [draw.up_to(layers) for _ in range(draw.up_to(depth, 0))],
        "horizon": horizon,
        "burn_in": draw.up_to(horizon - 1, 0),
        "reward": draw.one(*objective.REWARDS),
        "feedback": draw.one(*objective.FEEDBACKS),
        "step_bins": draw.up_to(5),
        "min_step": step_range[0],
        "max_step": step_range[1],
        "clip": draw.one(None, 1e-6, 1.0, 10.0, 1e30),
        "optimizer": draw.one(*OPTIMIZERS),
        "step_sizes": draw.one(*training.STEP_SIZES),
        "observation": draw.one("flat", "dict"),
    }
    if not policies and draw.one(True, False):
        arguments["batch_size"] = draw.up_to(shots[0] if isinstance(shots, tuple) else shots)
    if rule is not None:
        options = draw.some(
            batch_size=draw.up_to(8),
            learning_rate=draw.one(1e-6, 1e-3, 0.5, 1.0),
            rates_learning_rate=draw.one(1e-6, 1e-2, 10.0),
            clip=draw.one(1e-6, 10.0, 1e6),
            passes=1 if policies else draw.up_to(3),
        )
        arguments |= {"learn": rule, "learn_kwargs": {"batch_size": 3} | options}
    images = issubclass(kind, ClassFamily)
    pool = {
        "kind": draw.one(*LAYER_KINDS, MODULES, *(BLOCKS if images else ())),
        "width": draw.up_to(7),
        "layers": layers,
        "scale": draw.one(0.0, 1.0, 30.0, 1e6),
        "adapt_stem": draw.one(True, False),
        "rates": draw.one(None, *RATES),
        "rate": draw.one(1e-9, 0.01, 1.0, 1e6),
        "step_norms": draw.one(0, 0, 1, 3),
        "seed": draw.up_to(99),
    }
    return arguments, pool


def make_pool(
    family: TaskFamily,
    *,
    kind: str,
    width: int,
    layers: int,
    scale: float,
    adapt_stem: bool,
    rates: str | None,
    rate: float,
    step_norms: int,
    seed: int,
) -> LayerPool:
    """A random pool for the family: dense, convolutional or of modules, perhaps with rates and norms for each step.

    Args:
        family: of tasks.
        kind: of layers; "modules" for a user's own.
        width, layers, scale, adapt_stem, seed: see `random_pool`; the last three do not all apply to modules.
        rates, rate: granularity of learnable step sizes, None for none, and their initial value.
        step_norms: steps with norms of their own, for batch normalisation; 0 for none.
    """
    if kind == MODULES:
        pool = LayerPool.from_modules(
            stem=lambda: nn.Sequential(nn.Flatten(), nn.Linear(family.in_features, width), nn.ReLU()),
            layer=lambda: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ELU()),
            head=lambda: nn.Linear(width, family.out_features - family.constant_outputs),
            input_shape=family.input_shape,
            layers=layers,
            constant_outputs=family.constant_outputs,
            seed=seed,
        )
    elif kind in BLOCKS:
        pool = random_pool(family, kind=kind, width=8, layers=layers, seed=seed)
    else:
        pool = random_pool(family, kind=kind, width=width, layers=layers, scale=scale, adapt_stem=adapt_stem, seed=seed)
        if kind == "batch_norm" and step_norms:
            pool = pool.with_step_norms(step_norms, statistics=step_norms > 1)
    return pool if rates is None else pool.with_rates(rates, rate, steps=2, slots=2)


# -- networks that are trained from scratch ----------------------------------------------------------------------------


def own_data(seed: int, count: int, *, numbers: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A user's data set: sequences of 4 times 3 numbers, with two numbers each to predict, or one of three classes."""
    generator = np.random.default_rng(seed)
    inputs = torch.from_numpy(generator.normal(size=(count, 4, 3)).astype(np.float32))
    if numbers:
        return inputs, inputs[:, :2, 0] * 100.0
    labels = torch.from_numpy(generator.integers(3, size=count))
    labels[:3] = torch.arange(3)
    return inputs, labels


class Recurrent(nn.Module):
    """An LSTM with a linear layer on its last output."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (b, outputs) of inputs (b, 4, 3)."""
        output: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return output


def _dense(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, outputs))


def _data(draw: Draw, families: Sequence[str], *, numbers: bool = False) -> dict[str, Any]:
    """Where the data of networks come from: a named distribution, or with `families` alone not images, a user's own."""
    own = ("own labels", *(("own numbers",) if numbers else ())) if "clusters" in families else ()
    name = draw.one(*families, *own)
    if name in own:
        outputs, seed = (2 if name == "own numbers" else 3), draw.up_to(99)
        make = draw.one(Recurrent, _dense)
        parts = {
            part: own_data(seed + place, draw.up_to(30, 4), numbers=name == "own numbers")
            for place, part in enumerate(("train", "validation", "test"))
        }
        return {"module": lambda: make(outputs), **parts, "batch_size": draw.up_to(9)}
    fields: dict[str, Any] = {"split": draw.one(*SPLITS), "held_out": draw.up_to(20, 2)}
    if name == "glyphs":
        fields |= {"classes": draw.up_to(4, 2), "shots": draw.up_to(3), "side": draw.up_to(12, 6)}
        fields |= draw.some(shifts=(0.0, 1.0), turns=(0.0, 180.0), strokes=draw.up_to(4), batch_size=draw.up_to(9))
    else:
        fields |= {"examples": (draw.up_to(40, 12),), "batch_sizes": draw.pair(range(1, 17))}
        fields |= draw.some(label_noises=(0.0, 1.0), imbalances=(1.0, 1000.0), widths=(1, 8))
    if name == "clusters":
        fields |= draw.some(classes=draw.up_to(6, 2), features=draw.up_to(9), input_scales=(1e-6, 1.0, 1e6))
    return {"family": name, "family_kwargs": fields}


def _horizon(draw: Draw) -> dict[str, Any]:
    return {"horizon": draw.up_to(4), "updates": draw.up_to(5)}


def _net_tune(draw: Draw) -> tuple[dict[str, Any], None]:
    optimizer = draw.one(*OPTIMIZERS)
    more = [name for name in tuning.DIALS[1:] if name != "momentum" or OPTIMIZERS[optimizer].has_momentum]
    low, high = draw.pair(STEP_SIZES)
    return {
        **_data(draw, ("clusters", "glyphs", "digits"), numbers=True),
        **_horizon(draw),
        "optimizer": optimizer,
        "dials": ("step_size", *(draw.several(more) if more and draw.up_to(1, 0) == 0 else ())),
        **draw.one({}, {"min_step": low, "max_step": high}),
        **draw.some(observation="dict", step_sizes="group"),
        "step_bins": draw.up_to(3),
    }, None


def _net_loss(draw: Draw) -> tuple[dict[str, Any], None]:
    return {
        **_data(draw, ("clusters", "digits")),
        **_horizon(draw),
        "losses": draw.several(tuple(LOSSES), 3),
        "metric": draw.one(*METRICS),
        "reward": draw.one("gain", "sign"),
        "optimizer": draw.one(*OPTIMIZERS),
        "step_size": draw.one(*STEP_SIZES),
        **draw.some(observation="dict"),
        "step_bins": draw.up_to(3),
    }, None


def _net_rule(draw: Draw) -> tuple[dict[str, Any], None]:
    return {
        **_data(draw, ("clusters", "glyphs", "digits"), numbers=True),
        **_horizon(draw),
        "tasks": draw.up_to(2),
        "rates": draw.several(STEP_SIZES, 3),
    }, None


def _net_augment(draw: Draw) -> tuple[dict[str, Any], None]:
    return {
        **_data(draw, ("glyphs", "digits")),
        **_horizon(draw),
        "reward": draw.one("final", "area"),
        "optimizer": draw.one(*OPTIMIZERS),
        "step_size": draw.one(*STEP_SIZES),
        "step_bins": draw.up_to(3),
    }, None


# -- trials ------------------------------------------------------------------------------------------------------------


def _trial(draw: Draw, **own: Any) -> tuple[dict[str, Any], None]:
    episodes = draw.up_to(5)
    return {
        "episodes": episodes,
        "burn_in": draw.up_to(episodes - 1, 0),
        "split": draw.one(*SPLITS),
        **draw.some(**own),
    }, None


ARGUMENTS: dict[str, Any] = {
    "NetBuild": _net_build,
    "NetTune": _net_tune,
    "NetLoss": _net_loss,
    "NetRule": _net_rule,
    "NetAugment": _net_augment,
    "BanditTrial": lambda draw: _trial(draw, arms=draw.up_to(12)),
    "TabularTrial": lambda draw: _trial(draw, states=draw.up_to(9), actions=draw.up_to(6), steps=draw.up_to(8)),
    "NavigationTrial": lambda draw: _trial(draw, steps=draw.up_to(6)),
}
"""How arguments are drawn, by the environment without its encoding."""

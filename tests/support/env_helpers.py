"""Helpers for tests of environments: small configurations, recorded episodes, and exact comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from torch import Tensor

from gym_reml.mdp import TrainingMDP
from gym_reml.mdp.process import Outcome
from gym_reml.pool import LayerPool
from gym_reml.tasks.base import Batch, Forward, Generators, TaskFamily, Tasks
from gym_reml.tasks.custom import from_arrays, from_function
from gym_reml.tasks.functions.sinusoid import Sinusoid

OBSERVATIONS = ("flat", "dict")
SMALL: dict[str, Any] = {"pool": "random", "width": 6, "layers": 3, "shots": 3, "queries": 4}
"""Arguments of a small environment."""
MIXTURE: dict[str, Any] = {
    "family": "mixture",
    "family_kwargs": {"members": ["sinusoid", {"name": "linear"}, "step"], "split": "validation"},
}
"""Arguments of a mixture that JSON can hold."""


def hill(x: np.ndarray, height: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return height * np.exp(-((x - centre) ** 2))


HILLS = from_function(hill, {"height": (-2.0, 2.0), "centre": (-3.0, 3.0)})


def tiny_pool(**changes: Any) -> LayerPool:
    """A random pool of three layers for one input and one output."""
    return LayerPool.random(**({"in_features": 1, "out_features": 1, "width": 6, "layers": 3} | changes))


def make_classes() -> TaskFamily:
    """Classification of 2-D points into three classes, from arrays."""
    generator = np.random.default_rng(0)
    return from_arrays(generator.normal(size=(6, 20, 2)), generator.integers(3, size=(6, 20)), shots=4, queries=8)


@dataclass(frozen=True)
class Restless(Sinusoid):
    """Sinusoids whose points are drawn anew at every step, as trajectories of a policy are."""

    name: ClassVar[str] = "restless"
    fixed_data: ClassVar[bool] = False


@dataclass(frozen=True)
class Absolute(Sinusoid):
    """Sinusoids with a custom loss, differentiated by autograd."""

    name: ClassVar[str] = "absolute"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - batch.targets).abs().mean(dim=(1, 2))

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        return TaskFamily.output_gradient(self, outputs, batch)

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        return {"error": loss}


@dataclass(frozen=True)
class Secretive(Sinusoid):
    """Sinusoids that are shifted by `secret` on the query set only."""

    name: ClassVar[str] = "secretive"

    secret: float = 0.0

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        batch = super().query(tasks, forward, generators)
        return Batch(batch.inputs, batch.targets + self.secret)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # Room for more layers than there are steps: full networks have no ties to break.
    "box": ("NetBuild-v0", SMALL | {"depth": 6}),
    "dict observation": ("NetBuild-v0", SMALL | {"observation": "dict", "reward": "improvement"}),
    "multidiscrete, mixture, relu": ("NetBuildMultiDiscrete-v0", SMALL | MIXTURE | {"layer_kind": "relu"}),
    "discrete, classes, layer norm": (
        "NetBuildDiscrete-v0",
        SMALL | {"family": make_classes(), "layer_kind": "layer_norm", "observation": "dict"},
    ),
    "hybrid, tanh, one layer present": (
        "NetBuildHybrid-v0",
        SMALL | {"layer_kind": "tanh", "initial_layers": [2], "depth": 3, "min_step": 1e-3, "max_step": 100.0},
    ),
    "batch norm": ("NetBuild-v0", SMALL | {"layer_kind": "batch_norm", "depth": 2}),
    "derivative by autograd": ("NetBuildMultiDiscrete-v0", SMALL | {"family": Absolute()}),
    "policies": ("NetBuild-v0", SMALL | {"family": "navigation", "family_kwargs": {"steps": 3}, "max_step": 3.0}),
    "fresh data": ("NetBuild-v0", SMALL | {"family": Restless(), "feedback": "support"}),
}
"""An id and arguments for every encoding, layer kind, kind of loss and form of observation."""


def take_step(mdp: TrainingMDP, layers: Any, steps: Any) -> Outcome:
    """Decisions with these layers and step sizes (places on the range), (n,) each or one for all rows."""
    return mdp.step(mdp.decision.decide(mdp.count, layer=layers, step_size=steps))


def sample_actions(space: gym.Space[Any], count: int, seed: int = 0) -> list[Any]:
    """Random actions; some Boxes have equal logits, since ties depend on the row's generator."""
    space.seed(seed)
    actions = [space.sample() for _ in range(count)]
    if isinstance(space, gym.spaces.Box):
        for tied in np.flatnonzero(np.random.default_rng(seed).random(count) < 0.5):
            actions[tied][..., :-1] = 1.0
    return actions


def play(env: gym.Env[Any, Any], actions: Sequence[Any], seed: int | None = None, reset: bool = True) -> list[Any]:
    """The outcomes of these actions, with a reset after every end."""
    trail: list[Any] = [env.reset(seed=seed)] if reset else []
    for action in actions:
        trail.append(env.step(action))
        if trail[-1][2]:
            trail.append(env.reset())
    return trail


def play_vector(env: Any, actions: Sequence[Any], seed: Any = None, reset: bool = True) -> list[Any]:
    """The outcomes of these actions in a vector environment."""
    trail: list[Any] = [env.reset(seed=seed)] if reset else []
    return trail + [env.step(action) for action in actions]


def assert_same(first: Any, second: Any, tolerance: float = 0.0, path: str = "") -> None:
    """Same structure, types and numbers; floating-point numbers within the tolerance."""
    if isinstance(first, dict):
        assert isinstance(second, dict), path
        assert set(first) == set(second), path
        for name in first:
            assert_same(first[name], second[name], tolerance, f"{path}.{name}")
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple), path
        assert len(first) == len(second), path
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, tolerance, f"{path}[{number}]")
    elif isinstance(first, np.ndarray) and first.dtype == object:
        assert_same(first.tolist(), second.tolist(), tolerance, path)
    elif isinstance(first, np.ndarray | np.generic | float | int | bool):
        one, other = np.asarray(first), np.asarray(second)
        assert one.dtype == other.dtype, path
        if tolerance and one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=path)
        else:
            np.testing.assert_array_equal(one, other, err_msg=path)
    else:
        assert type(first) is type(second), path
        assert first == second, path

"""A family from outside: a class and an entry of FAMILIES, through make, episodes and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.evaluation.plans import Plan
from gym_reml.pool import LayerPool
from gym_reml.spaces import layer_and_step, make_encoding
from gym_reml.tasks import FAMILIES, Batch, make_family
from gym_reml.tasks.base import Forward, Generators, Tasks, uniforms
from gym_reml.tasks.supervised import Regression
from tests.support.env_helpers import SMALL


@dataclass(frozen=True)
class Planes(Regression):
    """z = slope . (x, y) on [-1, 1]^2, both slopes uniform in [-steepest, steepest]."""

    name: ClassVar[str] = "planes"
    steepest: float = 2.0

    @property
    def in_features(self) -> int:
        return 2

    @property
    def out_features(self) -> int:
        return 1

    @property
    def signal_size(self) -> int:
        return 2

    def draw(self, generators: Generators) -> Tasks:
        return {"slope": self.steepest * (2.0 * uniforms(generators, 2) - 1.0)}

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        assert isinstance(self.shots, int)
        return self._points(tasks, generators, self.shots)

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._points(tasks, generators, self.queries)

    def _points(self, tasks: Tasks, generators: Generators, count: int) -> Batch:
        x = 2.0 * uniforms(generators, 2 * count).reshape(-1, count, 2) - 1.0
        z = x @ tasks["slope"][:, :, None]
        inputs, targets = (torch.from_numpy(array.astype(np.float32)) for array in (x, z))
        return Batch(inputs, targets)

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        return ((batch.targets - outputs) * batch.inputs).mean(dim=1)


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, Planes.name, Planes)


def test_it_is_made_by_name_and_run() -> None:
    assert make_family("planes", steepest=0.5) == Planes(steepest=0.5)
    arguments: dict[str, Any] = SMALL | {"family": "planes", "family_kwargs": {"steepest": 0.5}}
    env = gym.make("NetBuild-v0", **arguments)
    _, info = env.reset(seed=0, options={"task": {"slope": [0.5, -0.25]}})
    assert info["task"]["slope"].tolist() == [0.5, -0.25]
    ends = [env.step(env.action_space.sample())[2] for _ in range(5)]
    assert ends == [False] * 4 + [True]
    envs = gym.make_vec("NetBuild-v0", num_envs=3, **arguments)
    assert np.abs(envs.reset(seed=0)[1]["task"]["slope"]).max() <= 0.5


def test_it_is_a_member_of_mixtures() -> None:
    mixture = make_family("mixture", members=[{"name": "planes", "steepest": 1.0}, "planes"])
    assert (mixture.in_features, mixture.out_features) == (2, 1)


def test_learners_are_evaluated_on_it_by_name() -> None:
    pool = LayerPool.random(in_features=2, out_features=1, width=16, layers=1, kind="relu")
    decision = layer_and_step(1)
    arguments = {"depth": 1, "initial_layers": [1], "horizon": 20, "min_step": 0.05, "max_step": 0.2}
    learner = MetaLearner("descent", Plan(make_encoding("box", decision)), pool, arguments)
    result = evaluate(learner, "planes", shots=20, steps=(0, 20), tasks=30)
    before, after = result.metrics["mse"].mean(axis=1)
    # The mean square of slope . (x, y) is 2 (4 / 3) (1 / 3) = 8 / 9.
    assert before > 0.5
    assert after < 0.3 * before

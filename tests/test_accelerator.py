"""What runs on the CPU runs on an accelerator as well, with the same results; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import gym_reml  # noqa: F401
from agents.comparison.grids import reml
from agents.problems.problem import Problem, own_shape, usual_shape
from agents.problems.recipes import CONVOLUTIONS, recipe_for
from agents.rivals import bouncegrad, fomaml, maml, maml_plus_plus, meta_sgd, pretrained, router
from gym_reml.evaluation import Ensemble, MetaLearner, evaluate
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.spaces import ENCODINGS
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.images.labelled import from_classes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


KINDS = ("relu", "tanh", "residual", "layer_norm", "batch_norm", "conv", "conv_group_norm", "conv_residual")


def pictures() -> TaskFamily:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (400, 16, 16), dtype=np.uint8)
    return from_classes(images, np.arange(40).repeat(10), ways=3, shots=1, queries=6)


def play(device: str, **arguments: Any) -> list[NDArray[Any]]:
    envs = gym.make_vec("NetBuild-v0", num_envs=6, device=device, pool="random", **arguments)
    observation, _ = envs.reset(seed=7)
    generator = np.random.default_rng(1)
    seen = [observation]
    for _ in range(8):
        action = generator.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        observation, reward, _, _, _ = envs.step(action)
        seen += [observation, np.asarray(reward)]
    envs.close()
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", KINDS)
def test_environments_play_as_on_the_cpu(kind: str, optimizer: str) -> None:
    family = pictures() if kind.startswith("conv") else "sinusoid"
    for cpu, other in zip(
        play("cpu", family=family, layer_kind=kind, optimizer=optimizer, width=8),
        play("cuda", family=family, layer_kind=kind, optimizer=optimizer, width=8),
        strict=True,
    ):
        # Where a gradient is all but 0, Adam's direction may be any.
        odd = ~np.isclose(other, cpu, rtol=2e-2, atol=2e-3)
        assert odd.mean() <= (0.02 if optimizer == "adam" else 0.0), other[odd] - cpu[odd]
        np.testing.assert_allclose(other, cpu, rtol=0.5, atol=0.5)


@pytest.mark.parametrize("action", ENCODINGS)
def test_tensors_are_on_the_device_and_those_of_arrays(action: str) -> None:
    arguments: dict[str, Any] = {"device": "cuda", "pool": "random", "width": 8, "action": action}
    arrays, tensors = (
        gym.make_vec("NetBuild-v0", 6, autoreset_mode="SameStep", output=output, **arguments)
        for output in ("numpy", "torch")
    )
    expected, found = [arrays.reset(seed=7)[0]], [tensors.reset(seed=7)[0]]
    for seed in range(8):
        arrays.action_space.seed(seed)
        given = arrays.action_space.sample()
        on_device: Any = (
            {name: torch.from_numpy(part).cuda() for name, part in given.items()}
            if isinstance(given, dict)
            else torch.from_numpy(given).cuda()
        )
        expected += arrays.step(given)[:4]
        *outcome, info = tensors.step(on_device)
        found += outcome
        if "final_obs" in info:
            assert info["final_obs"].is_cuda
    for one, other in zip(found, expected, strict=True):
        assert one.is_cuda
        np.testing.assert_allclose(one.cpu().numpy(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("granularity", RATES)
def test_pools_that_learn_do_so_on_the_device(granularity: str) -> None:
    pools = []
    for device in ("cpu", "cuda"):
        pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=4, seed=0)
        pool = pool.with_rates(granularity, 0.01, steps=4, slots=2).to(device)
        envs = gym.make_vec("NetBuild-v0", num_envs=8, pool=pool, learn="maml", horizon=4, device=device)
        envs.reset(seed=3)
        generator = np.random.default_rng(1)
        for _ in range(16):
            envs.step(generator.uniform(-1, 1, envs.action_space.shape).astype(np.float32))
        envs.close()
        pools.append(pool.to("cpu").trainable())
    torch.testing.assert_close(pools[1], pools[0], rtol=1e-2, atol=1e-3)


TRAININGS: dict[str, Callable[[Problem, Path], MetaLearner | Ensemble]] = {
    "maml": lambda problem, folder: maml.train(problem, 5, usual_shape(problem)),
    "fomaml": lambda problem, folder: fomaml.train(problem),
    "meta_sgd": lambda problem, folder: meta_sgd.train(problem, 5, own_shape(problem.recipe), False),
    "maml_plus_plus": lambda problem, folder: maml_plus_plus.train(problem),
    "pretrained": lambda problem, folder: pretrained.train(problem),
    "router": lambda problem, folder: router.train(problem),
    "bouncegrad": lambda problem, folder: bouncegrad.train(problem),
    "reml": reml(),
}


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize("method", TRAININGS)
def test_meta_learners_train_and_are_evaluated_on_the_device(method: str, network: str, tmp_path: Path) -> None:
    family = pictures() if network == "conv" else make_family("sinusoid")
    recipe = replace(recipe_for(family), **(CONVOLUTIONS | {"width": 8} if network == "conv" else {})).scaled(64)
    results = []
    for device in ("cpu", "cuda"):
        learner = TRAININGS[method](Problem(family, recipe, 64, 0, device), tmp_path / device)
        first = learner.members[0] if isinstance(learner, Ensemble) else learner
        assert first.pool.device.type == device
        results.append(evaluate(learner, family, tasks=8).values(5))
    if method not in ("reml", "router", "bouncegrad"):  # which may choose otherwise after the last bit of a number
        np.testing.assert_allclose(results[1], results[0], rtol=0.1, atol=0.02)

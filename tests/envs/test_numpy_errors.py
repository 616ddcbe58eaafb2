"""Environments run under `np.errstate(all="raise")`, which users set to find the source of a NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from gym_reml.evaluation import evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.evaluation.results import table
from gym_reml.pool import LayerPool
from gym_reml.tasks import FAMILIES, TaskFamily, from_arrays, from_classes, from_function
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

X = np.random.default_rng(0).normal(size=(9, 40, 2))
OWN: dict[str, Callable[[], TaskFamily]] = {
    "tiny arrays": lambda: from_arrays(X * 1e-43, X * 1e-44, shots=5, queries=5),
    "huge arrays": lambda: from_arrays(X * 1e37, X * 1e36, shots=5, queries=5),
    "standardised arrays": lambda: from_arrays(X * 1e30, X * 1e-30, shots=5, queries=5, standardise=True),
    "narrow formula": lambda: from_function(lambda x, a: a * np.exp(-40 * x**2), {"a": (1, 2)}),
    "standardised formula": lambda: from_function(lambda x, a: np.exp(-40 * x**2), {"a": (1, 2)}, standardise=True),
    "features": lambda: from_classes(X.reshape(-1, 2) * 1e-43, np.arange(360) % 20),
    "images": lambda: from_classes((X.reshape(360, 1, 2) * 99).astype(np.int64).astype(np.uint8), np.arange(360) % 20),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "short": {"horizon": 1},
    "long": {"horizon": 12},
    "drawn": {"render_mode": "rgb_array"},
    "learning": {"learn": "maml", "horizon": 2, "learn_kwargs": {"batch_size": 4}},
    "steps of every size": {"min_step": 1e-60, "max_step": 1e30},
}


def arguments_of(name: str, folder: Path) -> dict[str, Any]:
    if name in OWN:
        return {"family": OWN[name]()}
    if name == "mixture":
        return {"family": name, "family_kwargs": {"members": ["sinusoid", "step"]}}
    if name in IMAGE_FAMILIES:
        more = {"shifts": 1, "domains": ["identity", "contrast"]} if name == "omniglot" else {}
        return {"family": name, "family_kwargs": image_arguments(name, folder) | more, "queries": 4}
    if FAMILIES[name].__module__.endswith("mujoco"):
        pytest.importorskip("mujoco")
    if not FAMILIES[name].fixed_data:
        return {"family": name, "family_kwargs": {"steps": 4}, "shots": 2, "queries": 2}
    return {"family": name, "queries": 8}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [*FAMILIES, *OWN])
def test_every_family_plays(name: str, variant: str, tmp_path: Path) -> None:
    if variant == "drawn":
        pytest.importorskip("PIL", reason="pictures need Pillow")
    with np.errstate(all="raise"):
        arguments: dict[str, Any] = (
            {"width": 6, "layers": 3, "pool": "random"} | arguments_of(name, tmp_path) | VARIANTS[variant]
        )
        envs = gym.make_vec("NetBuild-v0", num_envs=3, **arguments)
        envs.action_space.seed(0)
        for episode in range(2):
            envs.reset(seed=episode)
            for _ in range(7):
                envs.step(envs.action_space.sample())
        env = gym.make("NetBuild-v0", **arguments)
        env.action_space.seed(0)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        if variant == "drawn":
            env.render()


@pytest.mark.parametrize("name", ["sinusoid", "bump", "tiny arrays", "images"])
def test_evaluations_and_tables(name: str, tmp_path: Path) -> None:
    with np.errstate(all="raise"):
        family = arguments_of(name, tmp_path)["family"]
        known = family if isinstance(family, TaskFamily) else FAMILIES[family]()
        pool = LayerPool.random(in_features=known.in_features, out_features=known.out_features, width=4, layers=2)
        learners = [plan_learner(str(step), pool, {}, (1, 2), step) for step in (-1.0, 1.0)]
        results = [evaluate(learner, family, steps=(0, 1, 5), tasks=2) for learner in learners]
        results[0].minus(results[1], 5)
        assert "diverged" in table(results)


@pytest.mark.parametrize("id", [id for id, spec in gym.registry.items() if "gym_reml" in str(spec.entry_point)])
def test_every_id_plays(id: str) -> None:
    with np.errstate(all="raise"):
        for envs in (gym.make(id), gym.make_vec(id, num_envs=2)):
            envs.action_space.seed(0)
            envs.reset(seed=0)
            for _ in range(30):
                *_, ended, cut, _ = envs.step(envs.action_space.sample())
                if isinstance(envs, gym.Env) and (ended or cut):
                    envs.reset()

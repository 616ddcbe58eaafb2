"""Learning inside the environment: finished episodes change the pool, and nothing else does."""

from __future__ import annotations

import multiprocessing
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv

from gym_reml.learning import RULES
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.sb3 import make_vec_env
from tests.support.env_helpers import (
    SMALL,
    Absolute,
    Restless,
    assert_same,
    make_classes,
    play,
    play_vector,
    sample_actions,
    tiny_pool,
)

pytestmark = pytest.mark.filterwarnings("error")
HORIZON = 2
DATA: dict[str, Any] = {"shots": 3, "queries": 4, "horizon": HORIZON}

every_rule = pytest.mark.parametrize("rule", RULES)


def snapshot(pool: LayerPool) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in pool.trainable().items()}


def unchanged(pool: LayerPool, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in pool.trainable().items())


def run_episodes(env: Any, count: int, seed: int | None = None) -> list[Any]:
    """Runs whole episodes of a single environment, or of all rows of a vector one."""
    trail: list[Any] = []
    for action in sample_actions(env.action_space, count * HORIZON, seed or 0):
        if len(trail) % HORIZON == 0:
            env.reset(seed=seed if not trail else None)
        trail.append(env.step(action))
    return trail


@every_rule
def test_the_pool_changes_after_enough_episodes(rule: str) -> None:
    pool = tiny_pool()
    env = gym.make("NetBuild-v0", pool=pool, learn=rule, learn_kwargs={"batch_size": 4}, **DATA).unwrapped
    before = snapshot(pool)
    run_episodes(env, 3, seed=0)
    assert unchanged(pool, before)
    run_episodes(env, 1)
    assert not unchanged(pool, before)
    assert env.mdp.learner.updates == (2 if rule in ("maml", "fomaml") else 1)  # type: ignore[attr-defined]
    after = snapshot(pool)
    run_episodes(env, 3)
    assert unchanged(pool, after), "the next four are not complete"


@every_rule
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_all_rows_feed_one_pool(rule: str, mode: str) -> None:
    pool = tiny_pool()
    envs: Any = gym.make_vec(
        "NetBuild-v0",
        num_envs=3,
        autoreset_mode=mode,
        pool=pool,
        learn=rule,
        learn_kwargs={"batch_size": 6, "passes": 1},
        **DATA,
    )
    before = snapshot(pool)
    actions = sample_actions(envs.action_space, 10)
    play_vector(envs, actions[:2], seed=0)
    assert unchanged(pool, before), "three episodes are there, six are needed"
    for action in actions[2:]:
        if mode == "Disabled":
            envs.reset()
            envs.step(actions[0])
        envs.step(action)
        if envs.unwrapped.mdp.learner.updates:
            break
    assert envs.unwrapped.mdp.learner.updates == 1
    assert not unchanged(pool, before)


@pytest.mark.parametrize("family", [make_classes(), Restless(), Absolute()], ids=["classes", "fresh data", "autograd"])
@every_rule
def test_other_families_are_learned_too(rule: str, family: Any) -> None:
    envs = gym.make_vec(
        "NetBuild-v0",
        num_envs=4,
        family=family,
        **(SMALL | {"horizon": HORIZON, "layer_kind": "layer_norm"}),
        learn=rule,
        learn_kwargs={"batch_size": 4},
    )
    pool = envs.unwrapped.pool  # type: ignore[attr-defined]
    before = snapshot(pool)
    play_vector(envs, sample_actions(envs.action_space, 4), seed=0)
    assert not unchanged(pool, before)
    assert all(tensor.isfinite().all() for tensor in pool.trainable().values())


@pytest.mark.parametrize("granularity", RATES)
def test_rates_are_learned_too(granularity: str) -> None:
    pool = tiny_pool().with_rates(granularity, 0.01, steps=HORIZON, slots=2)
    before = snapshot(pool)
    env = gym.make("NetBuild-v0", pool=pool, learn="maml", learn_kwargs={"batch_size": 4}, **DATA).unwrapped
    run_episodes(env, 4, seed=0)
    assert any(not torch.equal(rate, before[f"rate.{name}"]) for name, rate in pool.rates.items())


def test_learning_helps() -> None:
    """With the exact meta-gradient through the episodes' actions, later episodes end with lower losses."""
    envs: Any = gym.make_vec(
        "NetBuildHybrid-v0",
        num_envs=32,
        pool=tiny_pool(width=16, layers=2),
        learn="maml",
        learn_kwargs={"batch_size": 32, "learning_rate": 5e-3},
        max_step=0.02,
        autoreset_mode="Disabled",
        **(DATA | {"shots": 5, "queries": 20}),
    )
    step = np.ones((32, 1), dtype=np.float32)
    losses = []
    for iteration in range(80):
        envs.reset(seed=1000 * iteration)
        envs.step({"layer": np.ones(32, dtype=np.int64), "step_size": step})
        *_, info = envs.step({"layer": np.zeros(32, dtype=np.int64), "step_size": step})
        losses.append(info["query_loss"].mean())
    assert np.mean(losses[-20:]) < 0.85 * np.mean(losses[:20])


@every_rule
def test_learning_can_be_switched(rule: str) -> None:
    pool = tiny_pool()
    env = gym.make("NetBuild-v0", pool=pool, learn=rule, learn_kwargs={"batch_size": 2}, **DATA).unwrapped
    assert env.learning is True  # type: ignore[attr-defined]
    before = snapshot(pool)
    env.learning = False  # type: ignore[attr-defined]
    run_episodes(env, 4, seed=0)
    assert unchanged(pool, before)
    # Half an episode is not learned from: only what was recorded from its first step on can be replayed.
    env.reset()
    env.step(sample_actions(env.action_space, 1)[0])
    env.learning = True  # type: ignore[attr-defined]
    env.step(sample_actions(env.action_space, 1)[0])
    run_episodes(env, 1)
    assert unchanged(pool, before)
    run_episodes(env, 1)
    assert not unchanged(pool, before)


@every_rule
@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
def test_the_initial_weights_come_back(rule: str, vector: bool) -> None:
    pool = tiny_pool().with_rates("tensor", 0.01)
    before = snapshot(pool)
    arguments = DATA | {"pool": pool, "learn": rule, "learn_kwargs": {"batch_size": 2}}
    env: Any
    if vector:
        env = gym.make_vec("NetBuild-v0", num_envs=2, autoreset_mode="Disabled", **arguments)
    else:
        env = gym.make("NetBuild-v0", **arguments).unwrapped
    first = env.reset(seed=9)
    run_episodes(env, 4, seed=0)
    assert not unchanged(pool, before)
    learned = env.reset(seed=9)
    assert not np.array_equal(first[0], learned[0]), "a seed restarts tasks, not what was learned"
    assert_same(first[1]["task"], learned[1]["task"])
    restored = env.reset(seed=9, options={"pool": "initial"})
    assert unchanged(pool, before)
    assert_same(first, restored)
    run_episodes(env, 4, seed=0)
    assert not unchanged(pool, before), "it goes on learning"


def test_without_learning_the_option_changes_nothing() -> None:
    env = gym.make("NetBuild-v0", **SMALL)
    assert_same(env.reset(seed=0), env.reset(seed=0, options={"pool": "initial"}))


def test_an_evaluation_environment_sees_what_is_learned() -> None:
    """Training and evaluation environments may share one pool, which only training changes."""
    pool = tiny_pool()
    training = gym.make("NetBuild-v0", pool=pool, learn="maml", learn_kwargs={"batch_size": 2}, **DATA)
    evaluation = gym.make("NetBuild-v0", pool=pool, **DATA)
    observation, _ = evaluation.reset(seed=0)
    run_episodes(training, 2, seed=0)
    after = snapshot(pool)
    assert not np.array_equal(observation, evaluation.reset(seed=0)[0])
    run_episodes(evaluation, 4, seed=0)
    assert unchanged(pool, after)


def test_the_pool_changes_between_episodes_only() -> None:
    """Rows in mid-episode keep their copied weights when finished episodes of other rows change the pool."""
    pool = tiny_pool()
    arguments = DATA | {"horizon": 4}
    learning: Any = gym.make_vec(
        "NetBuild-v0",
        num_envs=2,
        autoreset_mode="Disabled",
        pool=pool,
        learn="in_place",
        learn_kwargs={"batch_size": 1},
        depth=1,
        **arguments,
    )
    frozen: Any = gym.make_vec(
        "NetBuild-v0", num_envs=2, autoreset_mode="Disabled", pool=pool.clone(), depth=1, **arguments
    )
    actions = sample_actions(learning.action_space, 6)
    before = snapshot(pool)
    for envs in (learning, frozen):
        play_vector(envs, actions[:2], seed=0)
        envs.reset(options={"reset_mask": np.array([False, True])})
    for number, action in enumerate(actions[2:]):
        one, other = learning.step(action), frozen.step(action)
        np.testing.assert_allclose(one[0][0], other[0][0], rtol=2e-4, atol=2e-4)
        if number < 2:
            np.testing.assert_allclose(one[0][1], other[0][1], rtol=2e-4, atol=2e-4)
        assert unchanged(pool, before) == (number < 1)


# -- worker processes ------------------------------------------------------------------------------------------------


def warnings_of_a_learning_environment(rows: int = 1) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if rows == 1:
            gym.make("NetBuild-v0", learn="maml", **SMALL)
        else:
            gym.make_vec("NetBuild-v0", num_envs=rows, learn="maml", **SMALL)
    return [str(warning.message) for warning in caught]


class Confessing(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps the warnings that its environment gave when it was made."""

    def __init__(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            super().__init__(gym.make("NetBuild-v0", learn="maml", **SMALL))
        self.said = " ".join(str(warning.message) for warning in caught)


def test_learning_in_worker_processes_is_warned_of() -> None:
    assert warnings_of_a_learning_environment() == []
    with multiprocessing.get_context("fork").Pool(1) as workers:
        said = workers.apply(warnings_of_a_learning_environment)
        assert workers.apply(warnings_of_a_learning_environment, (2,)) == [], "rows that share a pool"
    assert len(said) == 1
    assert "every worker would train a separate pool" in said[0]
    assert "make_vec_env" in said[0], "the remedy"


def test_learning_in_gymnasiums_workers_is_warned_of() -> None:
    envs = AsyncVectorEnv([Confessing, Confessing])
    try:
        assert all("separate pool" in said for said in envs.get_attr("said"))
    finally:
        envs.close()


# -- under SB3 -------------------------------------------------------------------------------------------------------


def test_reseeding_by_sb3_keeps_the_learned_pool() -> None:
    pool = tiny_pool()
    before = snapshot(pool)
    envs = make_vec_env(
        "NetBuild-v0", n_envs=4, seed=0, pool=pool, learn="maml", learn_kwargs={"batch_size": 4}, **DATA
    )
    envs.reset()
    for _ in range(2 * HORIZON):
        envs.step(np.stack([envs.action_space.sample() for _ in range(4)]))
    learned = snapshot(pool)
    assert not unchanged(pool, before)
    envs.seed(0)
    envs.reset()
    assert unchanged(pool, learned)
    assert envs.get_attr("pool")[0] is pool
    envs.set_attr("learning", False)
    for _ in range(2 * HORIZON):
        envs.step(np.stack([envs.action_space.sample() for _ in range(4)]))
    assert unchanged(pool, learned)
    envs.set_options({"pool": "initial"})
    envs.reset()
    assert unchanged(pool, before)


def test_episodes_of_a_single_environment_equal_those_of_a_learning_one_until_it_learns() -> None:
    plain = gym.make("NetBuild-v0", pool=tiny_pool(), **DATA)
    learning = gym.make("NetBuild-v0", pool=tiny_pool(), learn="reptile", **DATA)
    actions = sample_actions(plain.action_space, 20)
    assert_same(play(plain, actions, seed=0), play(learning, actions, seed=0))

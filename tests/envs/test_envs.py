"""The contract of every registered environment: Gymnasium's and SB3's rules, specifications, seeds and copies."""

from __future__ import annotations

import copy
import json
import pickle
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import gym_reml
from gym_reml.pool import LayerPool
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.env_helpers import (
    HILLS,
    MIXTURE,
    OBSERVATIONS,
    SMALL,
    VARIANTS,
    assert_same,
    play,
    play_vector,
    sample_actions,
)

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).resolve().parents[2]
LEARNING = {"learn": "maml", "learn_kwargs": {"batch_size": 3}}

every_id = pytest.mark.parametrize("env_id", gym_reml.ENVIRONMENTS)
every_observation = pytest.mark.parametrize("observation", OBSERVATIONS)
every_variant = pytest.mark.parametrize(("env_id", "arguments"), VARIANTS.values(), ids=VARIANTS)


def small_pool(seed: int = 0) -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=6, layers=3, seed=seed)


# -- the rules of others ---------------------------------------------------------------------------------------------


@every_id
@every_observation
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
def test_gymnasium_finds_nothing_wrong(env_id: str, observation: str, render_mode: str | None) -> None:
    # Only without a mode does the checker make an environment for each of them, which is as slow as drawing is.
    check_env(
        gym.make(env_id, observation=observation, render_mode=render_mode, **SMALL).unwrapped,
        skip_render_check=render_mode is not None,
    )


@pytest.mark.parametrize("env_id", [name for name, action in gym_reml.ENVIRONMENTS.items() if action != "hybrid"])
@every_observation
def test_sb3_finds_nothing_wrong(env_id: str, observation: str) -> None:
    check_env_for_sb3(gym.make(env_id, observation=observation, **SMALL).unwrapped)


def test_variants_cover_every_id() -> None:
    assert {env_id for env_id, _ in VARIANTS.values()} == set(gym_reml.ENVIRONMENTS)


@every_variant
def test_everything_returned_is_in_its_space(env_id: str, arguments: dict[str, Any]) -> None:
    env = gym.make(env_id, **arguments).unwrapped
    trail = play(env, sample_actions(env.action_space, 12), seed=0)
    for observation, *rest in trail:
        assert env.observation_space.contains(observation)
        if len(rest) > 1:
            reward, terminated, truncated, info = rest
            assert type(reward) is float
            assert np.isfinite(reward)
            assert type(terminated) is bool
            assert truncated is False
        info = rest[-1]
        assert type(info["layer"]) is type(info["depth"]) is int
        assert type(info["support_loss"]) is type(info["query_loss"]) is type(info["step_size"]) is float


# -- how an environment is made --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env_id",
    [*gym_reml.ENVIRONMENTS, "NetTune-v0", "NetLoss-v0", "NetRule-v0", "NetAugment-v0", *gym_reml.TRIALS],
)
def test_made_by_name_without_an_import(env_id: str) -> None:
    program = (
        f"import gymnasium, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"env = gymnasium.make('gym_reml:{env_id}')\n"
        "env.reset(seed=0); env.step(env.action_space.sample()); print(env.spec.id)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd="/")
    assert done.stdout.strip() == env_id, done.stderr


@every_id
def test_each_id_stands_for_its_encoding(env_id: str) -> None:
    env = gym.make(env_id, **SMALL)
    assert env.get_wrapper_attr("action_encoding").name == gym_reml.ENVIRONMENTS[env_id]
    assert gym.make(env_id, action="discrete", **SMALL).action_space == gym.spaces.Discrete(4 * 13)


@pytest.mark.parametrize("arguments", [SMALL, SMALL | MIXTURE, SMALL | {"initial_layers": [1], "max_step": 0.5}])
@every_id
def test_a_specification_survives_json(env_id: str, arguments: dict[str, Any]) -> None:
    env = gym.make(env_id, **arguments)
    assert env.spec is not None
    text = env.spec.to_json()
    json.loads(text)
    again = gym.make(EnvSpec.from_json(text))
    actions = sample_actions(env.action_space, 7)
    assert_same(play(env, actions, seed=5), play(again, actions, seed=5))


def test_a_vector_specification_survives_json() -> None:
    envs = gym.make_vec("NetBuild-v0", num_envs=3, autoreset_mode="SameStep", **SMALL)
    assert envs.spec is not None
    again = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()))
    assert again.num_envs == 3
    actions = sample_actions(envs.action_space, 7)
    assert_same(play_vector(envs, actions, seed=5), play_vector(again, actions, seed=5))


@pytest.mark.parametrize("learn", [None, "maml"])
def test_the_pool_that_was_given_is_the_one_used(learn: str | None) -> None:
    pool = small_pool()
    env = gym.make("NetBuild-v0", pool=pool, learn=learn)
    envs = gym.make_vec("NetBuild-v0", num_envs=2, pool=pool, learn=learn)
    assert env.unwrapped.pool is pool  # type: ignore[attr-defined]
    assert env.get_wrapper_attr("pool") is pool
    assert envs.unwrapped.pool is pool  # type: ignore[attr-defined]
    assert env.get_wrapper_attr("pool_source") == "given"


def test_family_objects_are_used_as_they_are() -> None:
    env = gym.make("NetBuild-v0", family=HILLS, pool="random").unwrapped
    assert env.family is HILLS or env.family == HILLS  # type: ignore[attr-defined]
    _, info = env.reset(seed=0)
    assert set(info["task"]) == {"height", "centre"}
    changed = gym.make("NetBuild-v0", family=Sinusoid(shots=7), queries=9, pool="random").unwrapped
    assert (changed.family.shots, changed.family.queries) == (7, 9)  # type: ignore[attr-defined]


# -- chance ----------------------------------------------------------------------------------------------------------


@every_variant
def test_a_seed_fixes_everything(env_id: str, arguments: dict[str, Any]) -> None:
    first, second = (gym.make(env_id, **arguments) for _ in range(2))
    actions = sample_actions(first.action_space, 12)
    trail = play(first, actions, seed=3)
    assert_same(trail, play(second, actions, seed=3))
    # Whatever came before does not matter after a seed.
    assert_same(trail, play(first, actions, seed=3))
    other = play(second, actions, seed=4)
    assert other[0][1]["support_loss"] != trail[0][1]["support_loss"]


def test_a_reset_without_a_seed_goes_on_with_the_stream() -> None:
    env = gym.make("NetBuild-v0", **SMALL)
    losses = [env.reset(seed=seed)[1]["query_loss"] for seed in (0, None, None)]
    assert len(set(losses)) == 3
    assert [env.reset(seed=seed)[1]["query_loss"] for seed in (0, None, None)] == losses


def test_environments_never_seeded_differ() -> None:
    losses = {gym.make("NetBuild-v0", **SMALL).reset()[1]["query_loss"] for _ in range(3)}
    assert len(losses) == 3


def test_splits_do_not_share_tasks() -> None:
    tasks = []
    for split in ("train", "validation", "test"):
        env = gym.make("NetBuild-v0", family_kwargs={"split": split}, **SMALL)
        tasks.append(env.reset(seed=0)[1]["task"]["amplitude"])
    assert len(set(tasks)) == 3


def global_state() -> tuple[Any, ...]:
    return pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("extra", [{}, {"render_mode": "ansi"}, LEARNING], ids=["plain", "drawn", "learning"])
def test_global_generators_are_neither_used_nor_moved(extra: dict[str, Any]) -> None:
    def trail() -> list[Any]:
        env = gym.make("NetBuild-v0", **SMALL, **extra)
        result = play(env, sample_actions(env.action_space, 25), seed=1)
        if extra.get("render_mode"):
            result.append(env.render())
        envs = gym.make_vec("NetBuild-v0", num_envs=2, **SMALL, **extra)
        return result + play_vector(envs, sample_actions(envs.action_space, 25), seed=1)

    before = global_state()
    first = trail()
    assert global_state() == before
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    random.seed(99)
    assert_same(first, trail())


# -- copies ----------------------------------------------------------------------------------------------------------

COPIES = {"pickle": lambda env: pickle.loads(pickle.dumps(env)), "deepcopy": copy.deepcopy}
every_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


@every_copy
@every_variant
def test_a_copy_in_mid_episode_goes_on_alike(env_id: str, arguments: dict[str, Any], duplicate: Any) -> None:
    env = gym.make(env_id, render_mode="ansi", **arguments)
    actions = sample_actions(env.action_space, 14)
    play(env, actions[:3], seed=0)
    twin = duplicate(env)
    assert twin.render() == env.render()
    assert_same(play(env, actions[3:], reset=False), play(twin, actions[3:], reset=False))
    assert twin.render() == env.render()


@every_copy
@every_variant
def test_a_copy_of_a_vector_goes_on_alike(env_id: str, arguments: dict[str, Any], duplicate: Any) -> None:
    envs = gym.make_vec(env_id, num_envs=3, **arguments)
    actions = sample_actions(envs.action_space, 14)
    play_vector(envs, actions[:3], seed=0)
    twin = duplicate(envs)
    assert_same(play_vector(envs, actions[3:], reset=False), play_vector(twin, actions[3:], reset=False))


@every_copy
@pytest.mark.parametrize("rule", ["maml", "reptile"])
def test_a_copy_learns_on_alike(rule: str, duplicate: Any) -> None:
    env = gym.make("NetBuild-v0", pool=small_pool(), learn=rule, learn_kwargs={"batch_size": 2}).unwrapped
    actions = sample_actions(env.action_space, 40)
    play(env, actions[:13], seed=0)
    twin = duplicate(env)
    assert twin.pool is not env.pool  # type: ignore[attr-defined]
    before = env.pool.parameters["layers.matrix"].clone()  # type: ignore[attr-defined]
    assert_same(play(env, actions[13:], reset=False), play(twin, actions[13:], reset=False))
    assert not torch.equal(env.pool.parameters["layers.matrix"], before)  # type: ignore[attr-defined]
    for name, tensor in env.pool.parameters.items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, twin.pool.parameters[name])


@pytest.mark.parametrize("vector", [False, True])
def test_without_learning_the_pool_stays_as_it_is(vector: bool) -> None:
    pool = small_pool()
    before = {name: tensor.clone() for name, tensor in pool.trainable().items()}
    env: Any
    if vector:
        env = gym.make_vec("NetBuild-v0", num_envs=4, pool=pool, max_step=1e6)
        play_vector(env, sample_actions(env.action_space, 100), seed=0)
    else:
        env = gym.make("NetBuild-v0", pool=pool, max_step=1e6)
        play(env, sample_actions(env.action_space, 100), seed=0)
    for name, tensor in pool.trainable().items():
        assert torch.equal(tensor, before[name]), name


# -- the packaged pool -----------------------------------------------------------------------------------------------

PACKAGED = ROOT / "gym_reml" / "data" / "sinusoid_specialists.pt"
packaged = pytest.mark.skipif(not PACKAGED.is_file(), reason=f"{PACKAGED.name} has not been made yet")


@packaged
@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        ({}, "packaged"),
        ({"shots": 10, "depth": 3, "horizon": 2}, "packaged"),
        ({"family": Sinusoid()}, "packaged"),
        ({"pool": "packaged"}, "packaged"),
        ({"pool": str(PACKAGED)}, str(PACKAGED)),
        ({"pool": PACKAGED}, str(PACKAGED)),
        ({"pool": "random"}, "random"),
        ({"pool": "random", "width": 12}, "random"),
        ({"family": "linear", "width": 12}, "random"),
        (MIXTURE, "random"),
    ],
)
def test_where_the_pool_comes_from(arguments: dict[str, Any], source: str) -> None:
    assert gym.make("NetBuild-v0", **arguments).get_wrapper_attr("pool_source") == source
    assert gym.make_vec("NetBuild-v0", num_envs=2, **arguments).unwrapped.pool_source == source  # type: ignore[attr-defined]


class TwoInputs(Sinusoid):
    """Has the name of the packaged pool's family, but other inputs."""

    @property
    def in_features(self) -> int:
        return 2


@packaged
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"width": 12}, "width=12"),
        ({"layers": 3}, "layers=3"),
        ({"layer_kind": "tanh"}, "layer_kind='tanh'"),
        ({"width": 12, "layers": 3}, "width=12 was asked for, layers=3"),
        ({"family": Sinusoid(shots=2), "layer_kind": "relu"}, "layer_kind='relu'"),
        ({"family": TwoInputs()}, "in_features=2"),
    ],
)
def test_random_layers_in_the_place_of_specialists_are_warned_of(arguments: dict[str, Any], named: str) -> None:
    for make in (gym.make, partial(gym.make_vec, num_envs=2)):
        with pytest.warns(UserWarning, match=rf"pool: .*width 40.*{named} was asked for.*pool='random'"):
            env: Any = make("NetBuild-v0", **arguments)
        assert env.unwrapped.pool_source == "random"


@packaged
@pytest.mark.parametrize("pool", ["packaged", str(PACKAGED)])
@pytest.mark.parametrize("arguments", [{"width": 12}, {"layers": 3}, {"layer_kind": "tanh"}])
def test_a_pool_asked_for_by_name_must_fit(pool: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pool: .*was asked for"):
        gym.make("NetBuild-v0", pool=pool, **arguments)


@packaged
def test_learning_does_not_change_the_packaged_pool_of_others() -> None:
    env = gym.make("NetBuild-v0", learn="in_place", learn_kwargs={"batch_size": 1}).unwrapped
    play(env, sample_actions(env.action_space, 10), seed=0)
    fresh = gym.make("NetBuild-v0").unwrapped
    assert not torch.equal(env.pool.parameters["stem.matrix"], fresh.pool.parameters["stem.matrix"])  # type: ignore[attr-defined]
    assert torch.equal(fresh.pool.parameters["stem.matrix"], LayerPool.load(PACKAGED).parameters["stem.matrix"])  # type: ignore[attr-defined]

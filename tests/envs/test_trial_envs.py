"""The contract of every registered trial environment."""

from __future__ import annotations

import copy
import json
import pickle
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import gym_reml
from gym_reml.sb3 import make_vec_env
from tests.support.env_helpers import assert_same, play, play_vector, sample_actions
from tests.support.trial_helpers import TRIAL_VARIANTS
from tests.support.vectors import assert_outcomes_agree, singles

pytestmark = pytest.mark.filterwarnings("error")
every_id = pytest.mark.parametrize("env_id", gym_reml.TRIALS)
every_variant = pytest.mark.parametrize(("env_id", "arguments"), TRIAL_VARIANTS.values(), ids=TRIAL_VARIANTS)
every_mode = pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])


def native(env_id: str, count: int, mode: str = "NextStep", **arguments: Any) -> Any:
    envs = gym.make_vec(env_id, num_envs=count, autoreset_mode=mode, **arguments)
    assert gym_reml.REGISTRATIONS[env_id].vector_entry_point.endswith(f":{type(envs).__name__}")
    return envs


# -- the rules of others ---------------------------------------------------------------------------------------------


def test_variants_cover_every_id() -> None:
    assert {env_id for env_id, _ in TRIAL_VARIANTS.values()} == set(gym_reml.TRIALS)


@every_id
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
def test_gymnasium_finds_nothing_wrong(env_id: str, render_mode: str | None) -> None:
    check_env(gym.make(env_id, render_mode=render_mode).unwrapped, skip_render_check=render_mode is not None)


@every_id
def test_sb3_finds_nothing_wrong(env_id: str) -> None:
    check_env_for_sb3(gym.make(env_id).unwrapped)


@every_variant
def test_a_specification_survives_json(env_id: str, arguments: dict[str, Any]) -> None:
    env = gym.make(env_id, **arguments)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    actions = sample_actions(env.action_space, 9)
    assert_same(play(env, actions, seed=5), play(again, actions, seed=5))
    envs = gym.make_vec(env_id, num_envs=2, **arguments)
    assert envs.spec is not None
    assert json.loads(envs.spec.to_json())["kwargs"].items() >= arguments.items()
    assert gym.make_vec(EnvSpec.from_json(envs.spec.to_json())).num_envs == 2


@every_variant
def test_everything_returned_is_in_its_space(env_id: str, arguments: dict[str, Any]) -> None:
    env = gym.make(env_id, **arguments).unwrapped
    for observation, *rest in play(env, sample_actions(env.action_space, 12), seed=0):
        assert env.observation_space.contains(observation)
        if len(rest) > 1:
            reward, terminated, truncated, info = rest
            assert (type(reward), type(terminated), truncated) == (float, bool, False)
        info = rest[-1]
        assert set(info) == {"task", "inner_episode", "inner_reward"}
        assert (type(info["inner_episode"]), type(info["inner_reward"])) == (int, float)


# -- chance, rows and copies -----------------------------------------------------------------------------------------


@every_variant
def test_a_seed_fixes_everything(env_id: str, arguments: dict[str, Any]) -> None:
    first, second = (gym.make(env_id, **arguments) for _ in range(2))
    actions = sample_actions(first.action_space, 12)
    trail = play(first, actions, seed=3)
    assert_same(trail, play(second, actions, seed=3))
    assert_same(trail, play(first, actions, seed=3))
    tasks = {repr(second.reset(seed=seed)[1]["task"]) for seed in (3, 4, None, None)}
    assert len(tasks) == 4
    assert len({repr(gym.make(env_id, **arguments).reset()[1]) for _ in range(3)}) == 3
    splits = [gym.make(env_id, **(arguments | {"split": split})) for split in ("train", "validation", "test")]
    assert len({repr(env.reset(seed=0)[1]) for env in splits}) == 3


@every_mode
@every_variant
def test_a_vector_is_its_singles(env_id: str, arguments: dict[str, Any], mode: str) -> None:
    count = 4
    ours, theirs = (make(env_id, count, mode, **arguments) for make in (native, singles))
    assert (ours.action_space, ours.observation_space) == (theirs.action_space, theirs.observation_space)
    assert_outcomes_agree(ours.reset(seed=7), theirs.reset(seed=7))
    actions = sample_actions(ours.action_space, 40)
    for action in actions[:2]:
        assert_outcomes_agree(ours.step(action), theirs.step(action))
    mask = np.array([True, False, True, False])
    masked = [envs.reset(options={"reset_mask": mask.copy()}) for envs in (ours, theirs)]
    assert_outcomes_agree(*masked)
    ends = []
    for action in actions[2:]:
        outcome = ours.step(action)
        assert_outcomes_agree(outcome, theirs.step(action))
        ends.append(outcome[2])
        if mode == "Disabled" and outcome[2].any():
            assert_outcomes_agree(*(envs.reset(options={"reset_mask": outcome[2].copy()}) for envs in (ours, theirs)))
    assert any(end.any() and not end.all() for end in ends), "rows end at different times"
    assert np.sum(ends, axis=0).min() >= 3


@every_variant
def test_rows_do_not_touch_each_other(env_id: str, arguments: dict[str, Any]) -> None:
    one, other = (native(env_id, 3, "SameStep", **arguments) for _ in range(2))
    actions, others = (sample_actions(one.action_space, 30, seed=seed) for seed in (0, 77))
    one.reset(seed=[1, 2, 3])
    other.reset(seed=[8, 2, 3])
    for action, different in zip(actions, others, strict=True):
        changed = np.array(action)
        changed[0] = different[0]
        first, second = one.step(action), other.step(changed)
        for mine, his in zip(first[:-1], second[:-1], strict=True):
            assert_same(mine[1:], his[1:])


@every_variant
def test_returned_arrays_are_not_written_to_again(env_id: str, arguments: dict[str, Any]) -> None:
    envs = native(env_id, 3, "SameStep", **arguments)
    actions = sample_actions(envs.action_space, 30)
    kept, before = [envs.reset(seed=0)], []
    before.append(copy.deepcopy(kept[0]))
    for action in actions:
        kept.append(envs.step(action))
        before.append(copy.deepcopy(kept[-1]))
    assert_same(before, kept)


@every_mode
def test_returned_arrays_may_be_written_to(mode: str) -> None:
    """Returned arrays may be changed by the caller without effect on the next trials."""
    ours, theirs = (native("BanditTrial-v0", 2, mode, episodes=2) for _ in range(2))
    ours.reset(seed=0)
    theirs.reset(seed=0)
    for _ in range(8):
        one, other = ours.step(np.zeros(2, dtype=np.int64)), theirs.step(np.zeros(2, dtype=np.int64))
        for mine, his in zip(one[:-1], other[:-1], strict=True):
            assert_same(mine, his)
            mine[:] = 0


COPIES = {"pickle": lambda env: pickle.loads(pickle.dumps(env)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@every_variant
def test_a_copy_in_mid_trial_goes_on_alike(env_id: str, arguments: dict[str, Any], duplicate: Any) -> None:
    env = gym.make(env_id, render_mode="ansi", **arguments)
    actions = sample_actions(env.action_space, 14)
    play(env, actions[:3], seed=0)
    twin = duplicate(env)
    assert_same(play(env, actions[3:], reset=False), play(twin, actions[3:], reset=False))
    assert twin.render() == env.render()
    envs = native(env_id, 3, **arguments)
    actions = sample_actions(envs.action_space, 14)
    play_vector(envs, actions[:3], seed=0)
    twins = duplicate(envs)
    assert_same(play_vector(envs, actions[3:], reset=False), play_vector(twins, actions[3:], reset=False))


# -- bad input -------------------------------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    *((env_id, {"episodes": value}, f"episodes={value!r}") for env_id in gym_reml.TRIALS for value in (0, 1.5, True)),
    *((env_id, {"burn_in": 10, "episodes": 10}, "burn_in=10.*episodes=10") for env_id in gym_reml.TRIALS),
    *((env_id, {"split": "all"}, "split='all'.*'train', 'validation', 'test'") for env_id in gym_reml.TRIALS),
    ("BanditTrial-v0", {"arms": 0}, "arms=0"),
    ("TabularTrial-v0", {"states": 0}, "states=0"),
    ("TabularTrial-v0", {"actions": -1}, "actions=-1"),
    ("TabularTrial-v0", {"steps": "ten"}, "steps='ten'"),
    ("NavigationTrial-v0", {"steps": 0}, "steps=0"),
]


@pytest.mark.parametrize(("env_id", "arguments", "message"), BAD_ARGUMENTS)
def test_a_bad_value_is_named(env_id: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make(env_id, **arguments)
    with pytest.raises(ValueError, match=message):
        gym.make_vec(env_id, num_envs=2, **arguments)


@every_id
def test_an_unknown_argument_is_named_with_the_choices(env_id: str) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(
            TypeError, match=r"unexpected keyword argument 'pulls'.*choices: .*episodes, burn_in, split"
        ):
            make(env_id, pulls=3)
    single: Any = type(gym.make(env_id).unwrapped)
    with pytest.raises(ValueError, match=r"render_mode='pdf'.*'ansi'"):
        single(render_mode="pdf")
    with pytest.raises(ValueError, match="num_envs=0"):
        gym.make_vec(env_id, num_envs=0)


@pytest.mark.parametrize(
    ("env_id", "action", "message"),
    [
        ("BanditTrial-v0", 5, "out of range"),
        ("BanditTrial-v0", -1, "out of range"),
        ("BanditTrial-v0", 1.5, "integers"),
        ("BanditTrial-v0", [1, 2], "shape"),
        ("TabularTrial-v0", None, "integers|shape"),
        ("NavigationTrial-v0", [0.0], "shape"),
        ("NavigationTrial-v0", [0.0, np.nan], "NaN"),
    ],
)
def test_a_bad_action_is_refused_without_effect(env_id: str, action: Any, message: str) -> None:
    env, twin = (gym.make(env_id).unwrapped for _ in range(2))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=rf"(?s)action.*({message})"):
        env.step(action)
    twin.action_space.seed(0)
    good = twin.action_space.sample()
    assert_same(env.step(good), twin.step(good))


def test_steps_after_the_end_of_a_trial_have_no_reward_and_stay_in_their_space() -> None:
    for env_id, arguments in (*TRIAL_VARIANTS.values(), ("NavigationTrial-v0", {"steps": 1})):
        env = gym.make(env_id, **arguments).unwrapped
        env.reset(seed=0)
        actions = sample_actions(env.action_space, 60)
        if isinstance(env.action_space, gym.spaces.Box):
            actions = [env.action_space.high] * 60  # straight out of the space
        outcomes = [env.step(action) for action in actions]
        assert all(env.observation_space.contains(outcome[0]) for outcome in outcomes)
        end = [outcome[2] for outcome in outcomes].index(True)
        assert all(outcome[2] and outcome[1] == 0.0 for outcome in outcomes[end + 1 :])


# -- speed -----------------------------------------------------------------------------------------------------------


@every_id
def test_the_native_vector_is_many_times_faster_than_singles_side_by_side(env_id: str) -> None:
    """The best of several alternating measurements of each, so that the ratio holds on a busy machine."""
    count = 256
    ours, theirs = (make(env_id, count, "SameStep") for make in (native, singles))
    actions = sample_actions(ours.action_space, 10)

    def seconds(envs: Any) -> float:
        begun = perf_counter()
        for action in actions:
            envs.step(action)
        return perf_counter() - begun

    ours.reset(seed=0)
    theirs.reset(seed=0)
    turns = [(seconds(ours), seconds(theirs)) for _ in range(4)]
    assert min(slow for _, slow in turns) > 20.0 * min(fast for fast, _ in turns)


# -- with what others wrote ------------------------------------------------------------------------------------------


@every_id
def test_sb3_receives_the_ends_of_trials_only(env_id: str) -> None:
    arguments = {"BanditTrial-v0": {}, "TabularTrial-v0": {"steps": 2}, "NavigationTrial-v0": {"steps": 2}}[env_id]
    env = make_vec_env(env_id, n_envs=3, seed=0, episodes=3, **arguments)
    env.reset()
    length = 3 if env_id == "BanditTrial-v0" else 6
    total = np.zeros(3)
    for step in range(1, 2 * length + 1):
        _, rewards, dones, infos = env.step(np.stack([env.action_space.sample() for _ in range(3)]))
        total += rewards
        assert dones.tolist() == [step % length == 0] * 3
        for row, info in enumerate(infos):
            if dones[row]:
                assert info["TimeLimit.truncated"] is False
                assert info["episode"]["l"] == length
                assert info["episode"]["r"] == pytest.approx(total[row], abs=1e-3)
                assert info["terminal_observation"].shape == env.observation_space.shape
        total[dones] = 0.0

"""The contract of every registered trial environment, and each of them against what its specification says."""

from __future__ import annotations

import copy
import json
import pickle
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import assert_same, play, play_vector, sample_actions
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from trial_helpers import TRIAL_VARIANTS, PlainNavigation, set_goal
from vectors import assert_outcomes_agree, singles

import gym_reml
from gym_reml.envs import Trial
from gym_reml.sb3 import make_vec_env
from gym_reml.tasks import make_family

pytestmark = pytest.mark.filterwarnings("error")
every_id = pytest.mark.parametrize("env_id", gym_reml.TRIALS)
every_variant = pytest.mark.parametrize(("env_id", "arguments"), TRIAL_VARIANTS.values(), ids=TRIAL_VARIANTS)
every_mode = pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])


def native(env_id: str, count: int, mode: str = "NextStep", **arguments: Any) -> Any:
    envs = gym.make_vec(env_id, num_envs=count, autoreset_mode=mode, **arguments)
    assert type(envs).__name__ == gym_reml.TRIALS[env_id].partition(":")[2] + "VectorEnv"
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
def test_everything_returned_is_what_the_spaces_say(env_id: str, arguments: dict[str, Any]) -> None:
    env = gym.make(env_id, **arguments).unwrapped
    for observation, *rest in play(env, sample_actions(env.action_space, 12), seed=0):
        assert env.observation_space.contains(observation)
        if len(rest) > 1:
            reward, terminated, truncated, info = rest
            assert (type(reward), type(terminated), truncated) == (float, bool, False)
            assert set(info) == {"inner_episode", "inner_reward"}
            assert (type(info["inner_episode"]), type(info["inner_reward"])) == (int, float)
        else:
            assert set(rest[0]) == {"task"}


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
def test_what_was_handed_out_is_not_written_to_again(env_id: str, arguments: dict[str, Any]) -> None:
    envs = native(env_id, 3, "SameStep", **arguments)
    actions = sample_actions(envs.action_space, 30)
    kept, before = [envs.reset(seed=0)], []
    before.append(copy.deepcopy(kept[0]))
    for action in actions:
        kept.append(envs.step(action))
        before.append(copy.deepcopy(kept[-1]))
    assert_same(before, kept)


@every_mode
def test_what_was_handed_out_may_be_written_to(mode: str) -> None:
    """What callers do with an outcome does not change when rows start anew."""
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
        with pytest.raises(TypeError, match=r"pulls=3: no such argument; choices: .*episodes, burn_in, split"):
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
def test_a_bad_action_is_refused_and_nothing_happens(env_id: str, action: Any, message: str) -> None:
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


def test_a_trial_that_is_over_earns_nothing_more() -> None:
    for env_id, arguments in TRIAL_VARIANTS.values():
        env = gym.make(env_id, **arguments).unwrapped
        env.reset(seed=0)
        actions = sample_actions(env.action_space, 60)
        outcomes = [env.step(action) for action in actions]
        end = [outcome[2] for outcome in outcomes].index(True)
        assert all(outcome[2] and outcome[1] == 0.0 for outcome in outcomes[end + 1 :])


# -- observations, rewards and ends, as RL² specifies them -----------------------------------------------------------


def parts(observation: NDArray[np.float32], actions: int) -> tuple[list[float], list[float], float, float]:
    """Inner observation, previous action, previous reward, previous done."""
    inner = len(observation) - actions - 2
    return observation[:inner].tolist(), observation[inner:-2].tolist(), float(observation[-2]), float(observation[-1])


@every_id
def test_a_trial_begins_with_action_0_reward_0_and_done_1(env_id: str) -> None:
    env = gym.make(env_id)
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    size = int(env.action_space.n) if discrete else 2  # type: ignore[attr-defined]
    for _ in range(2):
        observation, _ = env.reset()
        _, action, reward, done = parts(observation, size)
        assert action == [float(discrete)] + [0.0] * (size - 1)
        assert (reward, done) == (0.0, 1.0)
        env.step(env.action_space.sample())


def test_a_bandit_pays_as_its_arms_say_and_shows_what_it_paid() -> None:
    env = gym.make("BanditTrial-v0", arms=4, episodes=2000, burn_in=500)
    _, info = env.reset(seed=1)
    means = info["task"]["means"]
    assert means.shape == (4,)
    paid: list[list[float]] = [[], [], [], []]
    for pull in range(2000):
        observation, reward, terminated, _, info = env.step(pull % 4)
        inner, action, shown, done = parts(observation, 4)
        assert (inner, action.index(1.0), sum(action), done) == ([], pull % 4, 1.0, 1.0)
        assert shown == info["inner_reward"]
        assert shown in (0.0, 1.0)
        assert reward == (shown if pull >= 500 else 0.0)
        assert (info["inner_episode"], terminated) == (pull, pull == 1999)
        paid[pull % 4].append(shown)
    for mean, rewards in zip(means, paid, strict=True):
        assert np.mean(rewards) == pytest.approx(mean, abs=4 * (0.25 / 500) ** 0.5)


def test_arms_are_uniform() -> None:
    _, info = gym.make_vec("BanditTrial-v0", num_envs=2000, arms=3).reset(seed=0)
    means = info["task"]["means"]
    assert np.quantile(means, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert abs(np.corrcoef(means.T)[np.triu_indices(3, 1)]).max() < 0.1


def test_a_tabular_process_moves_and_pays_as_its_task_says() -> None:
    steps, episodes = 5, 4000
    env = gym.make("TabularTrial-v0", states=3, actions=2, steps=steps, episodes=episodes, burn_in=10)
    observation, info = env.reset(seed=2)
    transitions, means = info["task"]["transitions"], info["task"]["rewards"]
    assert transitions.shape == (3, 2, 3)
    assert transitions.sum(axis=-1) == pytest.approx(1.0)
    state, clock = 0, 0
    arrivals, payments = np.zeros((3, 2, 3)), np.zeros((3, 2, 0)).tolist()
    choice = np.random.default_rng(0)
    for step in range(steps * episodes):
        assert parts(observation, 2)[0].index(1.0) == state
        action = int(choice.integers(2))
        observation, reward, terminated, _, info = env.step(action)
        inner, previous, shown, done = parts(observation, 2)
        clock += 1
        assert previous.index(1.0) == action
        assert done == float(clock == steps)
        assert shown == pytest.approx(info["inner_reward"], rel=1e-6)
        assert reward == (info["inner_reward"] if step >= 10 * steps else 0.0)
        assert (info["inner_episode"], terminated) == (step // steps, step == steps * episodes - 1)
        payments[state][action].append(info["inner_reward"])
        if done:
            assert inner == [1.0, 0.0, 0.0], "the new episode's first observation"
            state, clock = 0, 0
        else:
            arrivals[state, action, inner.index(1.0)] += 1
            state = inner.index(1.0)
    for s in range(3):
        for a in range(2):
            found = arrivals[s, a]
            assert found / found.sum() == pytest.approx(transitions[s, a], abs=4 * (0.25 / found.sum()) ** 0.5)
            assert np.mean(payments[s][a]) == pytest.approx(means[s, a], abs=4 / len(payments[s][a]) ** 0.5)
            assert np.std(payments[s][a]) == pytest.approx(1.0, abs=0.1)


def test_tabular_tasks_have_their_prior() -> None:
    _, info = gym.make_vec("TabularTrial-v0", num_envs=200).reset(seed=0)
    transitions, rewards = info["task"]["transitions"], info["task"]["rewards"]
    # Dirichlet(1, ..., 1) over ten: each is Beta(1, 9), of mean .1 and variance 9 / 1100.
    assert transitions.mean() == pytest.approx(0.1)
    assert transitions.var() == pytest.approx(9 / 1100, rel=0.05)
    assert rewards.mean() == pytest.approx(1.0, abs=0.05)
    assert rewards.std() == pytest.approx(1.0, abs=0.05)


def test_navigation_is_the_plain_environment_within_a_time_limit() -> None:
    """Step by step against `Trial` around a plain environment, with ends by the goal and by the time limit."""
    env = gym.make("NavigationTrial-v0", steps=12, episodes=4, burn_in=1).unwrapped
    _, info = env.reset(seed=4)
    goal = info["task"]["goal"]
    plain = Trial(
        gym.wrappers.TimeLimit(PlainNavigation(), 12), lambda _: {"goal": goal}, set_goal, episodes=4, burn_in=1
    )
    first, _ = plain.reset(seed=0)
    assert first.tolist() == env.reset(seed=4)[0].tolist()
    choice, clock, over = np.random.default_rng(0), 0, False
    lengths: list[int] = []
    while not over:
        # Inner episodes 1 and 3 go straight for the goal, the others wander.
        straight = len(lengths) % 2 == 1
        where = env.trials.inner.observe()[0]  # type: ignore[attr-defined]
        action = (goal - where) / 0.1 if straight else choice.uniform(-2.0, 2.0, 2)
        action = action.astype(np.float32)
        ours, theirs = env.step(action), plain.step(np.clip(action, -1, 1))
        np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-6)
        assert ours[1] == pytest.approx(theirs[1], abs=1e-6)
        assert ours[2:4] == theirs[2:4]
        assert ours[4]["inner_episode"] == theirs[4]["inner_episode"]
        clock, over = clock + 1, ours[2]
        if ours[0][-1] == 1.0:
            lengths.append(clock)
            clock = 0
    assert lengths[0] == lengths[2] == 12
    assert max(lengths[1], lengths[3]) < 12


def test_navigation_has_the_goals_of_its_family() -> None:
    _, info = gym.make("NavigationTrial-v0", split="test").reset(seed=9)
    family = gym.make("NetBuild-v0", family=make_family("navigation", split="test", shots=1, queries=1, steps=2))
    assert info["task"]["goal"].tolist() == list(family.reset(seed=9)[1]["task"]["goal"])


# -- speed -----------------------------------------------------------------------------------------------------------


@every_id
def test_the_native_vector_is_many_times_faster_than_singles_side_by_side(env_id: str) -> None:
    """In one run, in turns, the best of each: a ratio that holds on a busy machine."""
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
def test_sb3_is_told_the_ends_of_trials_and_no_others(env_id: str) -> None:
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

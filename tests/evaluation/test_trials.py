"""Each trial environment compared with its specification."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import gym_reml
from gym_reml.envs import Trial
from gym_reml.tasks import make_family
from tests.support.trial_helpers import PlainNavigation, set_goal

pytestmark = pytest.mark.filterwarnings("error")
every_id = pytest.mark.parametrize("env_id", gym_reml.TRIALS)


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


def test_rewards_of_a_bandit_follow_its_means_and_are_observed() -> None:
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


def test_transitions_and_rewards_of_a_tabular_process_follow_its_task() -> None:
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

"""`Trial`, the wrapper: recomputed by hand on a counting environment, and on Gymnasium's."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from gym_reml.envs import Trial
from gym_reml.mdp.objective import TrialBudget
from tests.support.env_helpers import assert_same, play, sample_actions
from tests.support.trial_helpers import Chain, PlainNavigation, draw_goal, draw_length, set_goal, set_length

pytestmark = pytest.mark.filterwarnings("error")


def chain(actions: gym.Space[Any] | None = None, limit: int | None = None, **arguments: Any) -> Trial:
    """Trials of a `Chain`, with a time limit inside the wrapper."""
    inner: gym.Env[Any, Any] = Chain(actions or gym.spaces.Discrete(3))
    if limit is not None:
        inner = gym.wrappers.TimeLimit(inner, limit)
    return Trial(inner, draw_length, set_length, **arguments)


def test_a_trial_by_hand() -> None:
    env = Trial(Chain(gym.spaces.Discrete(3)), lambda _: {"length": 2}, set_length, episodes=2, burn_in=1)
    observation, info = env.reset(seed=0)
    number = observation[1]
    assert observation.tolist() == [0.0, number, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert info == {"options": None, "task": {"length": 2}, "inner_episode": 0, "inner_reward": 0.0}
    observation, reward, terminated, truncated, info = env.step(2)
    assert observation.tolist() == [1.0, number, 0.0, 0.0, 1.0, 12.0, 0.0]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"clock": 1, "task": {"length": 2}, "inner_episode": 0, "inner_reward": 12.0}
    observation, reward, terminated, _, info = env.step(1)
    # The inner episode is over: the next one's first observation, the last action and reward, and done.
    assert observation.tolist() == [0.0, observation[1], 0.0, 1.0, 0.0, 11.0, 1.0]
    assert observation[1] != number
    assert (reward, terminated, info["inner_episode"]) == (0.0, False, 0)
    _, reward, terminated, _, info = env.step(0)
    assert (reward, terminated, info["inner_episode"]) == (10.0, False, 1)
    observation, reward, terminated, truncated, info = env.step(0)
    assert (observation[-1], reward, terminated, truncated, info["inner_episode"]) == (1.0, 10.0, True, False, 1)


def test_time_limits_are_inner_ends_and_do_not_truncate_the_trial() -> None:
    env = Trial(gym.wrappers.TimeLimit(Chain(gym.spaces.Discrete(2)), 3), lambda _: {"length": 99}, set_length)
    env.reset(seed=0)
    outcomes = [env.step(1) for _ in range(6)]
    assert [outcome[0][-1] for outcome in outcomes] == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert [outcome[0][0] for outcome in outcomes] == [1.0, 2.0, 0.0, 1.0, 2.0, 0.0]
    assert [outcome[2] for outcome in outcomes] == [False] * 5 + [True]
    assert not any(outcome[3] for outcome in outcomes)
    assert [outcome[-1]["inner_episode"] for outcome in outcomes] == [0, 0, 0, 1, 1, 1]


def test_a_task_stays_for_the_trial_and_changes_with_it() -> None:
    env = chain(episodes=3)
    lengths: list[int] = []
    for _ in range(20):
        _, info = env.reset(seed=None if lengths else 0)
        ends, over, clock = [], False, 0
        while not over:
            observation, _, over, _, _ = env.step(0)
            clock += 1
            if observation[-1]:
                ends.append(clock)
        assert np.diff([0, *ends]).tolist() == [info["task"]["length"]] * 3
        lengths.append(info["task"]["length"])
    assert set(lengths) == {2, 3, 4}


ACTIONS: dict[str, tuple[gym.Space[Any], Any, list[float], list[float]]] = {
    "discrete": (gym.spaces.Discrete(3, start=5), 6, [1, 0, 0], [0, 1, 0]),
    "multidiscrete": (gym.spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [1, 0, 1, 0, 0], [0, 1, 0, 0, 1]),
    "multibinary": (gym.spaces.MultiBinary(3), np.array([1, 0, 1], dtype=np.int8), [0, 0, 0], [1, 0, 1]),
    "box": (gym.spaces.Box(-1, 1, (2,), np.float32), np.array([0.5, 3.0], dtype=np.float32), [0, 0], [0.5, 1]),
    "multidiscrete from 1": (
        gym.spaces.MultiDiscrete([2, 3], start=[1, 1]),
        np.array([2, 3]),
        [1, 0, 1, 0, 0],
        [0, 1, 0, 0, 1],
    ),
    "box without 0": (gym.spaces.Box(1, 2, (1,), np.float32), np.array([1.5], dtype=np.float32), [0], [1.5]),
    "matrix": (gym.spaces.Box(-2, 2, (2, 2), np.float32), np.ones((2, 2), dtype=np.float32), [0] * 4, [1] * 4),
}


@pytest.mark.parametrize(("space", "action", "first", "shown"), ACTIONS.values(), ids=ACTIONS)
def test_actions_of_every_kind_are_shown(space: gym.Space[Any], action: Any, first: Any, shown: Any) -> None:
    env = chain(space)
    observation, _ = env.reset(seed=0)
    assert observation[2:-2].tolist() == first
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(action)
    assert observation[2:-2].tolist() == shown
    assert env.observation_space.shape == (2 + len(first) + 2,)
    assert env.observation_space.contains(observation)


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"action space Dict.* none of Box, Discrete, MultiDiscrete, MultiBinary"):
        chain(gym.spaces.Dict(a=gym.spaces.Discrete(2)))
    graph = gym.spaces.Graph(gym.spaces.Box(0, 1, (1,)), None)
    with pytest.raises(ValueError, match=r"observation space Graph.* does not flatten"):
        Trial(Chain(gym.spaces.Discrete(2), graph), draw_length, set_length)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "episodes=0"),
        ({"episodes": 2, "burn_in": 2}, "burn_in=2.*episodes=2"),
        ({"split": "dev"}, "split='dev'.*'train', 'validation', 'test'"),
        ({"burn_in": True}, "burn_in=True"),
    ],
)
def test_bad_numbers_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chain(**arguments)


@pytest.mark.parametrize("name", ["draw_task", "set_task"])
def test_invalid_functions_are_refused(name: str) -> None:
    functions: dict[str, Any] = {"draw_task": draw_length, "set_task": set_length} | {name: 3}
    with pytest.raises(ValueError, match=f"{name}=3"):
        Trial(Chain(gym.spaces.Discrete(2)), **functions)


@pytest.mark.parametrize("seed", [-1, 1.5, "one"])
def test_a_bad_seed_is_named(seed: Any) -> None:
    with pytest.raises(ValueError, match=f"seed={seed!r}"):
        chain().reset(seed=seed)


def test_steps_after_the_end_of_a_trial_have_no_reward() -> None:
    env = Trial(Chain(gym.spaces.Discrete(2)), lambda _: {"length": 1}, set_length)
    env.reset(seed=0)
    assert [env.step(0)[1:3] for _ in range(4)] == [(10.0, False), (10.0, True), (0.0, True), (0.0, True)]


def test_a_step_before_the_first_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        chain().step(0)


def test_a_seed_fixes_everything() -> None:
    first, second = chain(limit=3), chain(limit=3)
    actions = sample_actions(first.action_space, 20)
    trail = play(first, actions, seed=3)
    assert_same(trail, play(second, actions, seed=3))
    assert_same(trail, play(first, actions, seed=3))
    assert play(second, actions, seed=4)[0][0].tolist() != trail[0][0].tolist()
    seeds = {chain(split=split).reset(seed=3)[0][1] for split in ("train", "validation", "test")}
    assert len(seeds) == 3
    assert len({chain().reset()[0][1] for _ in range(3)}) == 3


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_mid_trial_goes_on_alike(duplicate: Any) -> None:
    env = chain(episodes=4)
    actions = sample_actions(env.action_space, 30)
    play(env, actions[:5], seed=0)
    twin = duplicate(env)
    assert_same(play(env, actions[5:], reset=False), play(twin, actions[5:], reset=False))


def test_gymnasium_finds_nothing_wrong() -> None:
    with warnings.catch_warnings():
        # That there are wrappers, and that observations have no bounds.
        warnings.simplefilter("ignore")
        check_env(Trial(gym.wrappers.TimeLimit(PlainNavigation(), 5), draw_goal, set_goal), skip_render_check=True)


def test_vectors_and_registered_environments() -> None:
    """CartPole with gravity as the task, as in the documentation."""

    def draw_gravity(generator: np.random.Generator) -> dict[str, Any]:
        return {"gravity": float(generator.uniform(5.0, 15.0))}

    def set_gravity(env: gym.Env[Any, Any], task: dict[str, Any]) -> None:
        env.unwrapped.gravity = task["gravity"]  # type: ignore[attr-defined]

    envs = gym.vector.SyncVectorEnv(
        [lambda: Trial(gym.make("CartPole-v1", max_episode_steps=20), draw_gravity, set_gravity) for _ in range(3)]
    )
    observation, info = envs.reset(seed=0)
    assert observation.shape == (3, 4 + 2 + 2)
    assert [env.unwrapped.gravity for env in envs.envs] == info["task"]["gravity"].tolist()  # type: ignore[attr-defined]
    assert len(set(info["task"]["gravity"].tolist())) == 3
    ended = np.zeros(3, dtype=np.bool_)
    for _ in range(60):
        *_, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert not truncated.any()
        ended |= terminated
    assert ended.all()


def test_both_kinds_of_budgets_agree() -> None:
    """Rewards during the burn-in are 0, in both kinds of budgets."""
    earned = np.array([1.0, 2.0, 3.0, 4.0])
    clock = np.array([1, 2, 3, 4])
    assert TrialBudget(4, 2).counted(earned, clock).tolist() == [0.0, 0.0, 3.0, 4.0]
    assert TrialBudget(4).counted(earned, clock).tolist() == earned.tolist()


class Paying(Chain):
    """A chain whose rewards are converted by `pay`, and whose observations by `look`."""

    pay: Any = 1.0
    look: Any = None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation if self.look is None else self.look, self.pay, terminated, truncated, info


@pytest.mark.parametrize(
    "pay", [2, 2.0, np.array([2.0]), np.array(2), np.float32(2), np.array([2], np.int8), torch.tensor(2.0), [2.0]]
)
def test_a_reward_may_be_an_array_of_one_number(pay: Any) -> None:
    inner = Paying(gym.spaces.Discrete(3))
    inner.pay = pay
    env = Trial(inner, draw_length, set_length)
    env.reset(seed=0)
    observation, reward, _, _, info = env.step(1)
    assert (type(reward), reward, info["inner_reward"], observation[-2]) == (float, 2.0, 2.0, 2.0)
    inner.pay = torch.tensor([2.0], requires_grad=True)
    assert env.step(1)[-1]["inner_reward"] == 2.0


@pytest.mark.parametrize("pay", [np.zeros(2), np.zeros((1, 1)), [], None, "2", {"a": 1.0}, [[1], [1, 2]], 1j])
def test_a_reward_that_is_not_one_number_is_named(pay: Any) -> None:
    inner = Paying(gym.spaces.Discrete(3))
    inner.pay = pay
    env = Trial(inner, draw_length, set_length)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reward=.*one number"):
        env.step(1)


@pytest.mark.parametrize("look", [np.zeros(3, np.float32), np.zeros(1, np.float32), 0.0])
def test_an_observation_of_another_size_is_named(look: Any) -> None:
    inner = Paying(gym.spaces.Discrete(3))
    inner.look = look
    env = Trial(inner, draw_length, set_length)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"(?s)observation=.*its space has 2"):
        env.step(1)


def test_a_trial_on_a_given_task_is_the_same_but_for_the_task() -> None:
    env, other = chain(), chain()
    drawn = env.reset(seed=3)[1]["task"]["length"]
    _, info = other.reset(seed=3, options={"task": {"length": drawn + 5}, "mine": 1})
    assert (info["task"], info["options"]) == ({"length": drawn + 5}, {"mine": 1})
    assert other.task == {"length": drawn + 5}
    # The next task is the one that would have come in any case.
    assert_same(env.reset(), other.reset())
    # An info's task handed back.
    assert_same(other.reset(seed=3, options={"task": {"length": drawn}}), env.reset(seed=3, options={}))


@pytest.mark.parametrize("task", [{}, {"Length": 2}, {"length": 2, "width": 1}, 2, "length"])
def test_a_given_task_with_other_names_is_refused_and_the_old_one_stays(task: Any) -> None:
    env = chain()
    env.reset(seed=0)
    before = env.task
    with pytest.raises(ValueError, match=r"options: task=.*: must be a dict of 'length'"):
        env.reset(options={"task": task})
    assert env.task == before
    assert env.step(0)[4]["task"] == before

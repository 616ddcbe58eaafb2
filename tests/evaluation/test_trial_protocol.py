"""The protocol for trials, on an environment with known rewards, and on the registered ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from agents.trials.classical.bandits import Gittins, RandomArm
from gym_reml.envs.trials.envs import TrialProcessView
from gym_reml.evaluation import Normaliser, evaluate_trials

LENGTHS = ((2, 1, 3), (1, 1, 1), (4, 2, 2))
"""Steps of the inner episodes of rows 0, 1 and 2, then repeated; trials differ in length."""


class Scripted(TrialProcessView, VectorEnv[Any, Any, Any]):
    """Row i has reward 100 (i + seed) + 10 times the inner episode + the action; rows that end are reset."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    made: list[dict[str, Any]] = []

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))
        self.single_action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        Scripted.made.append(arguments)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seed = seed
        self.ends = [set(np.cumsum(LENGTHS[row % 3]).tolist()) for row in range(self.num_envs)]
        self.clock = np.zeros(self.num_envs, dtype=np.int64)
        return self._observe(np.ones(self.num_envs)), {"task": "secret"}

    def _observe(self, done: Any) -> NDArray[np.float32]:
        return np.stack([np.arange(self.num_envs), self.clock, done], axis=1).astype(np.float32)

    def step(self, actions: Any) -> Any:
        episode = np.array([sum(end <= now for end in ends) for ends, now in zip(self.ends, self.clock, strict=True)])
        reward = 100.0 * (np.arange(self.num_envs) + self.seed) + 10.0 * episode + actions
        self.clock += 1
        inner = np.array([now in ends for ends, now in zip(self.ends, self.clock, strict=True)])
        ended = np.array([now == max(ends) for ends, now in zip(self.ends, self.clock, strict=True)])
        self.clock[ended] = 0
        # Half of them are truncated, which ends a trial as well.
        odd = np.arange(self.num_envs) % 2 == 1
        return self._observe(inner), reward, ended & odd, ended & ~odd, {}


class Watching:
    """Always takes the same action; keeps the arguments of its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, bool]] = []

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self.calls.append((observation.copy(), state, episode_start.copy(), deterministic))
        return np.full(len(observation), 2), len(self.calls)


@pytest.fixture(autouse=True)
def _scripted() -> Iterator[None]:
    gym.register("Scripted-v0", vector_entry_point=Scripted)
    Scripted.made.clear()
    yield
    del gym.registry["Scripted-v0"]


def test_rewards_are_booked_to_their_episodes_until_the_trial_ends() -> None:
    found = evaluate_trials(Watching(), "Scripted-v0", 4, seed=5)
    # Each step pays 100 (row + 5) + 10 episode + 2.
    expected = np.array(
        [
            [length * (100.0 * (row + 5) + 10.0 * episode + 2.0) for episode, length in enumerate(LENGTHS[row % 3])]
            for row in range(4)
        ]
    )
    assert found.episodes.tolist() == expected.tolist()
    assert found.total.tolist() == expected.sum(axis=1).tolist()


def test_the_recurrent_state_is_passed_on_and_reset_once_a_trial() -> None:
    policy = Watching()
    evaluate_trials(policy, "Scripted-v0", 3, deterministic=False)
    assert len(policy.calls) == max(map(sum, LENGTHS))
    assert [state for _, state, _, _ in policy.calls] == [None, 1, 2, 3, 4, 5, 6, 7]
    starts = np.stack([start for _, _, start, _ in policy.calls])
    # Rows 0 and 1 begin others after 6 and 3 steps, inner episodes begin none.
    assert [np.flatnonzero(column).tolist() for column in starts.T] == [[0, 6], [0, 3, 6], [0]]
    assert not any(deterministic for *_, deterministic in policy.calls)


def test_observations_are_normalised_but_inner_ends_are_recognised() -> None:
    policy = Watching()
    normaliser = Normaliser(np.array([1.0, 0.0, 9.0]), np.array([4.0, 1.0, 1.0]), epsilon=0.0)
    found = evaluate_trials(policy, "Scripted-v0", 3, normaliser=normaliser)
    assert policy.calls[0][0].tolist() == [[-0.5, 0.0, -8.0], [0.0, 0.0, -8.0], [0.5, 0.0, -8.0]]
    assert found.episodes.tolist() == evaluate_trials(Watching(), "Scripted-v0", 3).episodes.tolist()


def test_only_informed_policies_receive_tasks() -> None:
    class Curious(Watching):
        told: Any = None

        def inform(self, info: dict[str, Any]) -> None:
            assert not self.calls, "before the first action"
            self.told = info

    curious = Curious()
    evaluate_trials(curious, "Scripted-v0", 2)
    assert curious.told == {"task": "secret"}


def test_arguments_reach_the_environment() -> None:
    evaluate_trials(Watching(), "gym_reml:Scripted-v0", 2, split="validation", episodes=7)
    assert Scripted.made == [{"split": "validation", "episodes": 7, "autoreset_mode": "SameStep"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "trials=0"),
        ({"trials": 2.5}, "trials=2.5"),
        ({"trials": "2"}, "trials='2'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
        ({"seed": True}, "seed=True"),
        ({"split": "all"}, "split='all'.*'train', 'valid.*'test'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_trials(Watching(), "Scripted-v0", **arguments)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "NetBuild-v0", "nope-v0"])
def test_other_environments_are_refused(env_id: str) -> None:
    with pytest.raises(ValueError, match=f"env_id='{env_id}'.*'BanditTrial-v0', 'TabularTrial-v0'"):
        evaluate_trials(Watching(), env_id, 2)


# -- the real ones --------------------------------------------------------------------------------------------------


def test_every_policy_has_the_same_tasks() -> None:
    """Task i is that of seed + i, for any number of trials."""

    class Nosy(RandomArm):
        def inform(self, info: dict[str, Any]) -> None:
            self.tasks = repr(info["task"])

    def tasks(**arguments: Any) -> str:
        policy = Nosy(3, seed=arguments.pop("own", 0))
        evaluate_trials(policy, "BanditTrial-v0", 4, arms=3, episodes=5, **arguments)
        return policy.tasks

    assert tasks() == tasks(own=1)
    assert len({tasks(), tasks(seed=1), tasks(split="train"), tasks(split="validation")}) == 4


def test_every_pull_is_an_episode() -> None:
    found = evaluate_trials(Gittins(4, 6), "BanditTrial-v0", 30, arms=4, episodes=6)
    assert found.episodes.shape == (30, 6)
    assert set(found.episodes.flat) == {0.0, 1.0}
    assert found.total.tolist() == found.episodes.sum(axis=1).tolist()
    again = evaluate_trials(Gittins(4, 6), "BanditTrial-v0", 10, seed=20, arms=4, episodes=6)
    assert again.episodes.tolist() == found.episodes[20:].tolist()

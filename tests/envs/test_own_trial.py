"""A custom trial environment: one file with single and vector environment and view, and an id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from gym_reml.evaluation import evaluate_trials
from gym_reml.rendering.trial import TRIAL_VIEWS
from gym_reml.sb3 import make_vec_env
from tests.support import lock_trial
from tests.support.env_helpers import assert_same
from tests.support.vectors import assert_outcomes_agree, singles

ID = "LockTrial-v0"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    place = lock_trial.__name__
    gym.register(ID, f"{place}:LockTrialEnv", vector_entry_point=f"{place}:LockTrialVectorEnv", kwargs={"numbers": 5})
    yield
    del gym.registry[ID]


@pytest.fixture
def _with_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRIAL_VIEWS, "lock", lock_trial.LockView())


class InOrder:
    """Tries every number in turn."""

    def __init__(self) -> None:
        self.step = -1

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self.step += 1
        return np.full(len(observation), self.step % 5), None


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("_with_view")
def test_checkers_of_gymnasium_and_sb3_pass() -> None:
    for render_mode in (None, "ansi", "rgb_array"):
        check_env(gym.make(ID, render_mode=render_mode).unwrapped, skip_render_check=render_mode is None)
    check_env_for_sb3(gym.make(ID).unwrapped)


def test_the_vector_equals_singles() -> None:
    ours, theirs = gym.make_vec(ID, num_envs=3, episodes=2), singles(ID, 3, "NextStep", episodes=2)
    assert isinstance(ours, lock_trial.LockTrialVectorEnv)
    assert ours.single_action_space == gym.spaces.Discrete(5)
    assert_same(ours.reset(seed=4), theirs.reset(seed=4))
    ours.action_space.seed(0)
    for _ in range(30):
        action = ours.action_space.sample()
        assert_outcomes_agree(ours.step(action), theirs.step(action))


def test_it_is_made_for_sb3_and_evaluated() -> None:
    envs: Any = make_vec_env(ID, n_envs=2, seed=0, episodes=1)
    assert np.shape(envs.reset()) == (2, 1 + 5 + 2)
    ends = [envs.step(np.full(2, number))[2] for number in range(5)]
    assert np.any(ends, axis=0).all()
    # Every inner episode ends with the reward 1 of the right number.
    assert evaluate_trials(InOrder(), ID, 4).episodes.tolist() == [[1.0, 1.0, 1.0]] * 4


@pytest.mark.usefixtures("_with_view")
@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_it_is_rendered_by_its_view(mode: str) -> None:
    envs: Any = gym.make_vec(ID, num_envs=2, render_mode=mode, burn_in=1)
    envs.reset(seed=0, options={"task": {"number": 3}})
    before: Any = envs.render()
    envs.step(np.array([2, 0]))
    frames: Any = envs.render()
    if mode == "rgb_array":
        assert {frame.shape for frame in frames} == {(560, 896, 3)}
        assert [(frame != old).any() for frame, old in zip(frames, before, strict=True)] == [True, True]
        assert (frames[0] != frames[1]).any()
    else:
        assert frames[0].splitlines() == [
            "Opening one lock: 3 times",
            "=" * 80,
            "now       1 attempts, 0 of them right",
            "burn-in   the first inner episode does not count",
            "attempts  2",
            "number    3",
        ]


def test_a_trial_without_a_view_is_refused_with_a_render_mode() -> None:
    gym.make(ID).reset()
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=r"render_mode: .*'lock'.*TRIAL_VIEWS.*'bandit', 'tabular', 'navigation'"):
            make(ID, render_mode="ansi")


@pytest.mark.parametrize("name", ["shots", "num_env"])
def test_its_unknown_arguments_are_named_with_the_choices(name: str) -> None:
    makers: tuple[Callable[..., Any], ...] = (gym.make, gym.make_vec, make_vec_env)
    for make in makers:
        with pytest.raises(TypeError, match=rf"argument '{name}'.*choices: numbers, episodes, burn_in, split, render"):
            make(ID, **{name: 1})

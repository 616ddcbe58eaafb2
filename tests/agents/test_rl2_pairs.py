"""Pairs of state and action for RL²'s memory: by hand, and the same in training as in evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecFrameStack

from agents import rl2
from agents.runs.run import Run
from agents.trials.play import play
from agents.trials.rl2.pairs import STACKED, PairFeatures, Stacked
from agents.trials.rl2.recipes import ACTIONS, STATES, Rl2Recipe, Setting, rl2_recipe_for
from agents.trials.rl2.training import train
from gym_reml.sb3 import make_vec_env

TABULAR = Setting("tabular", 2)
TINY = Rl2Recipe(320, n_envs=8, minibatch=4, epochs=1, lstm=8, heads=(8,), pairs=True)


def test_pairs_lie_between_two_observations() -> None:
    space = gym.spaces.Box(-20.0, 20.0, (2 * (3 + 2 + 2),))
    features = PairFeatures(space, states=3, actions=2)
    begun = [*[0.0] * 7, 1, 0, 0, 1, 0, 0, 1]
    # From state 2 by action 1, which paid -1.5, to state 0.
    later = [0.0, 0, 1, 1, 0, 4, 0, *[1, 0, 0, 0, 1, -1.5, 0]]
    found = features(torch.tensor([begun, later]))
    assert found.shape == (2, features.features_dim) == (2, 14 + 12)
    assert found[0].tolist() == [*begun, *[0] * 12]
    assert found[1].tolist() == [*later, *[0, 0, 0, 0, 0, 1], *[0, 0, 0, 0, 0, -1.5]]
    with pytest.raises(ValueError, match=r"observation_space=.*\(14,\).*3 states and 2 actions"):
        PairFeatures(gym.spaces.Box(-1.0, 1.0, (7,)), 3, 2)


class Recording:
    """Takes note of what it is shown, and acts as it is told."""

    def __init__(self, actions: NDArray[np.int64]) -> None:
        self.actions, self.seen = actions, list[NDArray[np.float32]]()

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self.seen.append(observation)
        count = 0 if state is None else state
        return self.actions[count], count + 1


def test_evaluation_shows_what_training_showed() -> None:
    actions = np.random.default_rng(0).integers(ACTIONS, size=(50, 3))
    envs = make_vec_env("TabularTrial-v0", n_envs=3, episodes=2)
    envs.seed(5)
    stacked, expected = VecFrameStack(envs, STACKED), list[Any]()
    observation: Any = stacked.reset()
    for step in range(50):
        expected.append(observation)
        observation, *_ = stacked.step(actions[step])
    envs.seed(5)
    recording = Recording(actions)
    policy, state, start = Stacked(recording), None, np.ones(3, dtype=np.bool_)
    observation = envs.reset()
    for _ in range(50):
        chosen, state = policy.predict(observation, state, start)
        observation, _, start, _ = envs.step(chosen)
    assert observation.shape == (3, STATES + ACTIONS + 2)
    np.testing.assert_array_equal(recording.seen, expected)


def test_training_takes_pairs_and_evaluation_does_too(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", rl2.Config(env="tabular"), "rl2")
    trained = train(run, TABULAR, TINY, 0)
    assert isinstance(trained.policy, Stacked)
    assert isinstance(trained.agent.policy.features_extractor, PairFeatures)
    returns = play(trained.policy, TABULAR, 20).total
    again = train(Run(run.folder), TABULAR, TINY, 0)
    assert play(again.policy, TABULAR, 20).total.tolist() == returns.tolist()


@pytest.mark.slow
def test_a_fifth_of_the_training_learns_within_trials(tmp_path: Path) -> None:
    setting = Setting.of("tabular")
    run = Run.create(tmp_path / "run", rl2.Config(env="tabular"), "rl2")
    recipe = rl2_recipe_for(setting)
    trained = train(run, setting, Rl2Recipe(**{**vars(recipe), "total_steps": recipe.total_steps // 5}), 0)
    episodes = play(trained.policy, setting, 1000).episodes.mean(axis=0)
    assert episodes[-1] > episodes[0] + 1.5

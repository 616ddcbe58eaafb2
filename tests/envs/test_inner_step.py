"""Optimizers and minibatches in every encoding, in single and vector environments."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import gym_reml
from gym_reml.networks.optimizers import OPTIMIZERS
from tests.support.env_helpers import SMALL, assert_same, play_vector, sample_actions
from tests.support.vectors import COUNT, assert_outcomes_agree, singles

TINY = SMALL | {"horizon": 3}
OTHERS: dict[str, list[Any]] = {"optimizer": [name for name in OPTIMIZERS if name != "sgd"], "batch_size": [2]}
ARGUMENTS = [{name: value} for name, values in OTHERS.items() for value in values]
every_argument = pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda given: ",".join(map(str, given.values())))
every_id = pytest.mark.parametrize("env_id", gym_reml.ENVIRONMENTS)


@every_argument
@every_id
def test_rows_are_single_environments(env_id: str, arguments: dict[str, Any]) -> None:
    """Through two episodes, and rows that are reset on their own."""
    arguments = TINY | arguments
    envs: Any = gym.make_vec(env_id, num_envs=COUNT, **arguments)
    others = singles(env_id, **arguments)
    actions = sample_actions(envs.action_space, 9)
    for ours, theirs in zip(play_vector(envs, actions, seed=3), play_vector(others, actions, seed=3), strict=True):
        assert_outcomes_agree(ours, theirs)


@every_argument
def test_it_matters(arguments: dict[str, Any]) -> None:
    """From the second step on, at the latest."""
    outcomes = []
    for given in (arguments, {}):
        envs: Any = gym.make_vec("NetBuildHybrid-v0", num_envs=COUNT, **TINY, **given)
        actions = envs.unwrapped.action_encoding.encode(envs.unwrapped.decision.decide(COUNT, layer=1))
        outcomes.append(play_vector(envs, [actions] * 2, seed=0)[-1][-1]["support_loss"])
    assert (outcomes[0] != outcomes[1]).all()


@every_argument
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_copies_go_on_alike(arguments: dict[str, Any], copied: Any) -> None:
    """In the middle of an episode."""
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=COUNT, **TINY, **arguments)
    actions = sample_actions(envs.action_space, 7)
    play_vector(envs, actions[:2], seed=0)
    twin = copied(envs)
    assert_same(play_vector(envs, actions[2:], reset=False), play_vector(twin, actions[2:], reset=False))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_refused_steps_leave_no_trace(optimizer: str) -> None:
    """Later steps are as if there had been no such step, for the optimizer too."""
    trails = []
    for sizes in ((0.01, 1e30, 0.01, 0.01), (0.01, 0.01, 0.01)):
        envs: Any = gym.make_vec("NetBuild-v0", num_envs=COUNT, **TINY, optimizer=optimizer)
        envs.reset(seed=1)
        mdp, losses = envs.unwrapped.mdp, []
        for size in sizes:
            trained = mdp.train(np.full(COUNT, 2), np.full(COUNT, size, dtype=np.float32))
            assert (trained.diverged == (size > 1.0)).all()
            losses += [] if size > 1.0 else [mdp.support_loss.copy()]
        trails.append(losses)
    np.testing.assert_array_equal(trails[0], trails[1])

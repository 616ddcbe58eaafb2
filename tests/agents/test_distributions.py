"""The unchecked distribution of agents, against SB3's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.distributions import MultiCategoricalDistribution
from stable_baselines3.common.vec_env import VecNormalize
from torch.distributions import Distribution

from agents.reml.algorithms import make_agent
from agents.reml.distributions import UncheckedCategories
from agents.reml.training import IDS
from gym_reml.pool import LayerPool
from gym_reml.sb3 import make_vec_env


def made(algorithm: str, checked: bool) -> Any:
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=3)
    env = VecNormalize(make_vec_env(IDS["multidiscrete"], n_envs=4, pool=pool, horizon=3), norm_reward=False)
    agent = make_agent(algorithm, env, seed=0, learning_rate=1e-3, log_folder=None)
    assert type(agent.policy.action_dist) is UncheckedCategories
    if checked:
        agent.policy.action_dist = MultiCategoricalDistribution(agent.policy.action_dist.action_dims)
    return agent


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "TRPO", "RecurrentPPO"])
def test_agents_learn_the_same_to_the_bit(algorithm: str) -> None:
    """Actions, log-probabilities, values, gradients and so all weights, from the same state of the generators."""
    parameters = []
    for checked in (False, True):
        agent = made(algorithm, checked)
        agent.learn(160)
        parameters.append(agent.policy.state_dict())
    for name, tensor in parameters[0].items():
        assert torch.equal(tensor, parameters[1][name]), name


def test_its_numbers_are_those_of_sb3() -> None:
    logits = 5.0 * torch.randn((200, 5), generator=torch.Generator().manual_seed(0))
    logits[0, :2] = torch.tensor([-torch.inf, 0.0])
    found = []
    for kind in (UncheckedCategories, MultiCategoricalDistribution):
        distribution = kind([2, 3]).proba_distribution(logits.clone().requires_grad_())
        torch.manual_seed(3)
        actions = distribution.sample()
        log_prob, entropy = distribution.log_prob(actions), distribution.entropy()
        found.append((actions, log_prob, entropy, distribution.mode()))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_the_users_setting_stays_as_it_is() -> None:
    before = Distribution._validate_args
    agent = made("PPO", checked=False)
    agent.learn(80)
    assert Distribution._validate_args is before


def test_numbers_that_are_not_finite_are_found() -> None:
    agent = made("PPO", checked=False)
    with torch.no_grad():
        agent.policy.action_net.bias.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="nan"):
        agent.policy(torch.as_tensor(np.zeros((4, *agent.observation_space.shape), dtype=np.float32)))

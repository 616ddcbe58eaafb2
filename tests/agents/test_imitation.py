"""The agent's head start: it imitates the assignment of tasks to clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from agents.reml.algorithms import ENCODINGS, make_agent
from agents.reml.imitation import imitate, show_clusters
from agents.reml.rollouts import native
from agents.reml.training import IDS
from gym_reml.meta_training import find_clusters
from gym_reml.pool import LayerPool
from gym_reml.sb3 import make_vec_env

LAYERS = 4


def environment(algorithm: str) -> VecNormalize:
    pool = LayerPool.random(in_features=1, out_features=1, layers=LAYERS, kind="relu").with_rates("weight", 0.01)
    arguments = {"pool": pool, "initial_layers": (1,), "depth": 2, "horizon": 3}
    return VecNormalize(make_vec_env(IDS[ENCODINGS[algorithm]], n_envs=64, seed=0, **arguments), norm_reward=False)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "MaskablePPO"])
def test_agents_pick_the_cluster_of_tasks_they_never_met(algorithm: str) -> None:
    env = environment(algorithm)
    agent = make_agent(algorithm, env, seed=0, learning_rate=1e-3, log_folder=None)
    env.reset()
    clusters = find_clusters(native(env).mdp, LAYERS - 1, tasks=300)
    imitate(agent, env, show_clusters(native(env).mdp, clusters, encoding=native(env).action_encoding, rounds=30))
    env.seed(10**6)
    observation = env.reset()
    seen = env.get_original_obs()
    assert isinstance(seen, np.ndarray)
    wanted = clusters.assign(seen) + 2
    actions, _ = agent.predict(observation, deterministic=True)
    assert (actions[:, 0] == wanted).mean() > 0.9
    middle = native(env).action_encoding.step_bins // 2
    assert (actions[:, 1] == middle).mean() > 0.9
    later, *_ = env.step(actions)
    actions, _ = agent.predict(later, deterministic=True)
    assert (actions[:, 0] == 0).mean() > 0.9


@pytest.mark.parametrize("algorithm", ["DQN", "SAC", "ARS", "RecurrentPPO"])
def test_agents_without_such_a_policy_are_left_alone_with_a_warning(algorithm: str) -> None:
    env = environment(algorithm)
    agent = make_agent(algorithm, env, seed=0, learning_rate=1e-3, log_folder=None)
    env.reset()
    clusters = find_clusters(native(env).mdp, LAYERS - 1, tasks=64)
    before = [tensor.clone() for tensor in agent.policy.parameters()]
    with pytest.warns(UserWarning, match=f"^{algorithm} starts without imitating"):
        imitate(agent, env, show_clusters(native(env).mdp, clusters, encoding=native(env).action_encoding, rounds=2))
    assert all(map(torch.equal, before, agent.policy.parameters()))

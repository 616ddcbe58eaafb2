"""REINFORCE: its gradient against plain PyTorch, what it learns, and what it refuses."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.tuning.reinforce import Reinforce
from gym_reml.evaluation.saved_policy import policy_from_state, policy_state
from gym_reml.sb3 import HybridPolicy, make_vec_env
from tests.support.tuning_helpers import small_data

HORIZON = 4
LARGE: dict[str, Any] = {"max_grad_norm": 1e9, "seed": 0, "device": "cpu"}


class Seen(BaseCallback):
    """The policy and the rollout before each step."""

    def __init__(self) -> None:
        super().__init__()
        self.policies: list[Any] = []
        self.rollouts: list[dict[str, NDArray[np.float32]]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        self.policies.append(deepcopy(model.policy))
        buffer = model.rollout_buffer
        self.rollouts.append({name: getattr(buffer, name).copy() for name in ("observations", "actions", "rewards")})


@pytest.mark.parametrize("env_id", ["NetLoss-v0", "NetLossMultiDiscrete-v0", "NetLossDiscrete-v0", "NetAugment-v0"])
def test_a_step_is_the_sum_of_log_probabilities_times_what_returns_exceed_their_average(env_id: str) -> None:
    envs = make_vec_env(env_id, n_envs=4, seed=0, horizon=HORIZON, updates=2, family_kwargs=small_data(env_id))
    policy: Any = HybridPolicy if env_id == "NetAugment-v0" else "MlpPolicy"
    kwargs = {"optimizer_class": torch.optim.SGD}
    agent = Reinforce(policy, envs, 0.3, HORIZON, gamma=0.9, ent_coef=0.02, memory=0.75, policy_kwargs=kwargs, **LARGE)
    seen = Seen()
    agent.learn(4 * HORIZON * 4, seen)
    average = None
    for before, after, rollout in zip(seen.policies, seen.policies[1:], seen.rollouts, strict=False):
        rewards, gain = rollout["rewards"], torch.zeros(())
        returns = np.stack([sum(0.9 ** (s - t) * rewards[s] for s in range(t, HORIZON)) for t in range(HORIZON)])
        average = returns.mean(1) if average is None else average
        for t in range(HORIZON):
            for row in range(4):
                distribution = before.get_distribution(torch.from_numpy(rollout["observations"][t, [row]]))
                action = torch.from_numpy(rollout["actions"][t, [row]])
                action = action.long().flatten() if env_id == "NetLossDiscrete-v0" else action
                excess = float(returns[t, row] - average[t])
                gain = gain + (distribution.log_prob(action) * excess + 0.02 * distribution.entropy()).sum()
        average = 0.75 * average + 0.25 * returns.mean(1)
        gain = gain / (4 * HORIZON)
        weights = dict(before.named_parameters())
        gradients = torch.autograd.grad(gain, list(weights.values()), allow_unused=True)
        assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in gradients)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            expected = weight if gradient is None else weight + 0.3 * gradient
            torch.testing.assert_close(after.get_parameter(name), expected, rtol=1e-4, atol=1e-6)
    assert len(seen.policies) == 4


class Levers(gym.Env[Any, Any]):
    """Two decisions between three levers, which are worth 100 or, the last one, 101."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, length: int = 2, truncated: bool = False) -> None:
        self.action_space = spaces.Discrete(3)
        self.length, self.truncated, self.time = length, truncated, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.time = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        done = self.time == self.length
        ends = (False, done) if self.truncated else (done, False)
        return np.ones(2, dtype=np.float32), 100.0 + (action == 2), *ends, {}


def levers(length: int = 2, truncated: bool = False) -> DummyVecEnv:
    return DummyVecEnv([lambda: Levers(length, truncated)] * 8)


def test_it_learns_which_lever_is_best_whatever_all_are_worth() -> None:
    agent = Reinforce("MlpPolicy", levers(), 1e-2, 2, seed=0, device="cpu").learn(2 * 8 * 150)
    distribution: Any = agent.policy.get_distribution(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).distribution
    assert distribution.probs[:, 2].min() > 0.8
    np.testing.assert_allclose(agent.baseline, [202, 101], atol=0.8)


def test_nothing_is_expected_after_a_truncated_episode() -> None:
    agent, seen = Reinforce("MlpPolicy", levers(truncated=True), 1e-2, 2, seed=0, device="cpu"), Seen()
    agent.learn(16, seen)
    last = 100.0 + (seen.rollouts[0]["actions"][1] == 2).mean()
    first = 100.0 + (seen.rollouts[0]["actions"][0] == 2).mean()
    np.testing.assert_allclose(agent.baseline, [first + last, last], rtol=1e-6)


def test_what_is_saved_is_gone_on_with(tmp_path: Path) -> None:
    agent = Reinforce("MlpPolicy", levers(), 1e-2, 2, memory=0.5, seed=0, device="cpu").learn(160)
    agent.save(tmp_path / "agent")
    again = Reinforce.load(tmp_path / "agent", levers(), device="cpu")
    assert again.memory == 0.5
    torch.testing.assert_close(again.baseline, agent.baseline, rtol=0, atol=0)
    for one in (agent, again):
        one.set_random_seed(3)
        one.learn(160)
    for mine, its in zip(agent.policy.parameters(), again.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0)
    read = policy_from_state(*policy_state(agent))
    observation = np.ones((5, 2), dtype=np.float32)
    np.testing.assert_array_equal(read.predict(observation)[0], agent.predict(observation, deterministic=True)[0])


@pytest.mark.parametrize("memory", [1.0, -0.1, "0.9", None])
def test_a_bad_memory_is_named(memory: Any) -> None:
    with pytest.raises(ValueError, match=r"memory=.*: must be a number from 0 to below 1"):
        Reinforce("MlpPolicy", levers(), memory=memory)


@pytest.mark.parametrize("length", [1, 3])
def test_episodes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="n_steps=2: must be the length of every episode"):
        Reinforce("MlpPolicy", levers(length), n_steps=2, device="cpu").learn(32)

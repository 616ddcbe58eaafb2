"""The exact hybrid policy with all algorithms that support it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import gym_reml.sb3.vec_env
from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.evaluation.meta_learner import find_algorithm
from gym_reml.evaluation.saved_policy import decode_space, policy_from_state, policy_state
from gym_reml.sb3 import ChoicesCallback, HybridPolicy, RecurrentHybridPolicy, make_vec_env
from gym_reml.spaces import Decision, DecisionBox, layer_and_step, make_encoding
from tests.support.env_helpers import SMALL

pytestmark = pytest.mark.filterwarnings("error")
CHOICES = 4  # layers 0..3
BOX = DecisionBox(layer_and_step(CHOICES - 1))
OBSERVATION = spaces.Box(-1.0, 1.0, (2,), np.float32)


# -- the policy ------------------------------------------------------------------------------------------------------


def policy(**kwargs: Any) -> HybridPolicy:
    return HybridPolicy(kwargs.pop("observations", OBSERVATION), kwargs.pop("actions", BOX), lambda _: 1e-3, **kwargs)


def test_an_untrained_policy_is_nearly_uniform() -> None:
    made = policy(log_std_init=-1.5)
    found: Any = made.get_distribution(torch.tensor(np.stack([OBSERVATION.sample() for _ in range(20)])))
    (layer,), step = found.distribution.choices, found.distribution.numbers
    assert layer.probs.shape == (20, CHOICES)
    torch.testing.assert_close(layer.probs, torch.full_like(layer.probs, 1.0 / CHOICES), rtol=0.05, atol=0.0)
    torch.testing.assert_close(step.mean, torch.zeros(20, 1), rtol=0.0, atol=0.05)
    torch.testing.assert_close(step.stddev, torch.full((20, 1), -1.5).exp())
    assert made.log_std.shape == (1,)
    small, usual = (one.state_dict()["action_net.weight"].norm() for one in (made, policy(ortho_init=False)))
    assert small < 0.1 * usual
    optimised = {id(parameter) for group in made.optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in made.parameters()}


@pytest.mark.parametrize("kind", [HybridPolicy, RecurrentHybridPolicy])
@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(3), "action_space=Discrete.*it is no Box.*action='box'"),
        (spaces.Dict(), "it is no Box"),
        (spaces.MultiDiscrete([4, 13]), "it is no Box"),
        (spaces.Box(-1.0, 1.0, (CHOICES + 1,)), r"has no decision.*DecisionBox\(decision\)"),
        (spaces.Box(-2.0, 1.0, (4,)), "has no decision"),
    ],
)
def test_other_spaces_are_refused(kind: Any, space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(OBSERVATION, space, lambda _: 1e-3)


@pytest.mark.parametrize("option", ["use_sde", "squash_output"])
def test_other_distributions_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=True: must be False"):
        policy(**{option: True})
    with pytest.raises(ValueError, match="use_sde=True"):
        PPO(HybridPolicy, make_vec_env("NetBuild-v0", **SMALL), use_sde=True)


def test_a_policy_is_saved_alone(tmp_path: Path) -> None:
    made = policy(log_std_init=-0.5, net_arch=[8])
    made.save(str(tmp_path / "policy.pt"))
    observation = OBSERVATION.sample()
    again = HybridPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    expected, _ = made.predict(observation, deterministic=True)
    np.testing.assert_array_equal(again.predict(observation, deterministic=True)[0], expected)


def test_dict_observations() -> None:
    made = policy(observations=spaces.Dict({"one": OBSERVATION, "other": OBSERVATION}))
    action, _ = made.predict({"one": OBSERVATION.sample(), "other": OBSERVATION.sample()})
    assert BOX.contains(action)


WITHOUT_CONTRIB = """
import sys
sys.modules["sb3_contrib"] = None
from gym_reml.sb3 import HybridPolicy, make_vec_env
from stable_baselines3 import PPO
PPO(HybridPolicy, make_vec_env("NetBuild-v0", pool="random", shots=3), device="cpu")
try:
    from gym_reml.sb3 import RecurrentHybridPolicy
except ImportError as error:
    print(error)
"""


def test_sb3_contrib_is_not_needed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(gym_reml.__file__).parent.parent)}
    command = [sys.executable, "-c", WITHOUT_CONTRIB]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "RecurrentHybridPolicy needs sb3-contrib: pip install sb3-contrib", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'NoSuchPolicy'"):
        _ = gym_reml.sb3.vec_env.NoSuchPolicy  # type: ignore[attr-defined]


# -- the algorithms --------------------------------------------------------------------------------------------------

ALGORITHMS: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 8, "batch_size": 8, "n_epochs": 2},
    "A2C": {"n_steps": 8},
    "TRPO": {"n_steps": 8, "batch_size": 8},
    "RecurrentPPO": {"n_steps": 8, "batch_size": 8, "n_epochs": 2},
}


def envs(**arguments: Any) -> Any:
    return make_vec_env("NetBuild-v0", **({"n_envs": 4, "seed": 0, "horizon": 3} | SMALL | arguments))


def make_agent(name: str, env: VecEnv) -> Any:
    kwargs: dict[str, Any] = {"net_arch": [8], "log_std_init": -0.5}
    kind: type[HybridPolicy] = HybridPolicy
    if name == "RecurrentPPO":
        kind, kwargs = RecurrentHybridPolicy, kwargs | {"lstm_hidden_size": 8}
    return find_algorithm(name)(kind, env, policy_kwargs=kwargs, device="cpu", seed=0, **ALGORITHMS[name])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_saves_and_loads(name: str, tmp_path: Path) -> None:
    agent = make_agent(name, envs())
    before = {key: value.clone() for key, value in agent.policy.state_dict().items()}
    agent.learn(256)
    after = agent.policy.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    moved = {key for key, value in after.items() if not torch.equal(before[key], value)}
    assert {"log_std", "action_net.weight", "action_net.bias", "value_net.weight"} <= moved

    agent.save(tmp_path / "agent")
    again = type(agent).load(tmp_path / "agent", device="cpu")
    assert type(again.policy) is type(agent.policy)
    observation = envs().reset()
    for deterministic in (True, False):
        found = []
        for one in (agent, again):
            torch.manual_seed(0)
            found.append(one.predict(observation, deterministic=deterministic)[0])
        np.testing.assert_array_equal(*found)
    again.set_env(envs())
    again.learn(32, reset_num_timesteps=False)
    assert again.num_timesteps >= 256 + 32


@pytest.mark.parametrize("name", ["PPO", "RecurrentPPO"])
def test_stored_actions_are_as_likely_as_when_they_were_taken(name: str) -> None:
    """Ratios are 1 until the first update, although the environment receives clipped numbers."""
    agent = make_agent(name, envs())
    agent.learn(32)
    buffer = agent.rollout_buffer
    agent.collect_rollouts(agent.env, agent._init_callback(None), buffer, agent.n_steps)
    actions = buffer.actions.reshape(-1, buffer.actions.shape[-1])
    assert (np.abs(actions[:, -1]) > 1.0).any(), "unclipped"
    assert set(np.unique(actions[:, :-1])) == {-1.0, 1.0}
    for batch in buffer.get(None if name == "PPO" else 32):
        if name == "PPO":
            _, log_prob, entropy = agent.policy.evaluate_actions(batch.observations, batch.actions)
            taken, old = slice(None), batch.old_log_prob
        else:
            _, log_prob, entropy = agent.policy.evaluate_actions(
                batch.observations, batch.actions, batch.lstm_states, batch.episode_starts
            )
            taken, old = batch.mask > 0.0, batch.old_log_prob
        torch.testing.assert_close(log_prob[taken], old[taken], rtol=1e-4, atol=1e-4)
        assert entropy.shape == log_prob.shape


def test_trpo_keeps_its_trust_region() -> None:
    agent = make_agent("TRPO", envs())
    agent.learn(32)
    assert 0.0 < agent.logger.name_to_value["train/kl_divergence_loss"] < agent.target_kl
    assert agent.logger.name_to_value["train/is_line_search_success"] == 1.0


def test_a_learner_with_the_policy_is_saved(tmp_path: Path) -> None:
    env = envs()
    agent = make_agent("PPO", env)
    MetaLearner.from_sb3(agent).save(tmp_path)
    observation, start = env.reset(), np.ones(4, dtype=bool)
    expected, _ = agent.predict(observation, deterministic=True)
    np.testing.assert_array_equal(MetaLearner.load(tmp_path).act(observation, None, start, None)[0], expected)


class Bandit(VecEnv):
    """A contextual bandit: the context determines the rewarded layer, and its best step size."""

    best_steps = np.array([-0.6, -0.2, 0.2, 0.6], dtype=np.float32)

    def __init__(self) -> None:
        super().__init__(32, spaces.Box(0.0, 1.0, (CHOICES,), np.float32), BOX)
        self.generator = np.random.default_rng(0)

    def reset(self) -> NDArray[np.float32]:
        self.right = self.generator.integers(CHOICES, size=self.num_envs)
        return np.eye(CHOICES, dtype=np.float32)[self.right]

    def step_async(self, actions: NDArray[np.float32]) -> None:
        assert (np.abs(actions) <= 1.0).all()
        self.actions = actions

    def step_wait(self) -> Any:
        hit = self.actions[:, :-1].argmax(axis=1) == self.right
        rewards = hit * (1.0 - np.abs(self.actions[:, -1] - self.best_steps[self.right]))
        last = np.eye(CHOICES, dtype=np.float32)[self.right]
        infos = [{"terminal_observation": row} for row in last]
        return self.reset(), rewards.astype(np.float32), np.ones(self.num_envs, dtype=bool), infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Targets(gym.Env[Any, Any]):
    """A contextual bandit: reward for choices equal to the first feature, and numbers near the second."""

    observation_space = OBSERVATION

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.encoding = make_encoding("box", decision)
        self.action_space = self.encoding.space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.bits = self.np_random.integers(2, size=2)
        return self.bits.astype(np.float32), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        everything = self.decision.all_allowed(1)
        decided = self.encoding.decode(action[None], everything, generators=[self.np_random])
        hits = (decided.choices[0] == self.bits[0]).sum()
        reward = hits - np.abs(decided.numbers[0] - (self.bits[1] - 0.5)).sum()
        return self.bits.astype(np.float32), float(reward), True, False, {}


DECISIONS = {
    "two choices, two numbers": Decision((2, 3), 2),
    "numbers alone": Decision(numbers=2),
    "a choice alone": Decision((3,)),
}
every_decision = pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)


@every_decision
@pytest.mark.parametrize("name", ALGORITHMS)
def test_any_decision_is_learned_saved_and_loaded(name: str, decision: Decision, tmp_path: Path) -> None:
    """As SB3 saves, and as meta-learners are saved, without pickles."""
    agent = make_agent(name, DummyVecEnv([lambda: Targets(decision)] * 2))
    assert agent.policy.decision == decision
    assert agent.policy.log_std.shape == (decision.numbers,)
    agent.learn(32)
    assert all(value.isfinite().all() for value in agent.policy.state_dict().values())
    agent.save(tmp_path / "agent")
    agent.policy.save(str(tmp_path / "policy"))
    about, weights = policy_state(agent)
    again = type(agent).load(tmp_path / "agent", device="cpu")
    plain = policy_from_state(json.loads(json.dumps(about)), weights)
    policies = [again.policy, plain.policy]
    if name != "RecurrentPPO":  # whose policies leave out the size of their LSTM
        policies.append(type(agent.policy).load(str(tmp_path / "policy"), device="cpu"))
    observation = np.eye(2, dtype=np.float32)
    expected, _ = agent.predict(observation, deterministic=True)
    assert expected.shape == (2, decision.size)
    for one in policies:
        np.testing.assert_array_equal(one.predict(observation, deterministic=True)[0], expected)
        assert one.decision == decision
    again.set_env(DummyVecEnv([lambda: Targets(decision)] * 2))
    again.learn(16, reset_num_timesteps=False)


@every_decision
def test_any_decision_is_solved(decision: Decision) -> None:
    agent = PPO(
        HybridPolicy,
        DummyVecEnv([lambda: Targets(decision)] * 8),
        n_steps=32,
        batch_size=128,
        n_epochs=6,
        learning_rate=5e-3,
        policy_kwargs={"net_arch": [32], "log_std_init": -0.5},
        device="cpu",
        seed=0,
    )
    agent.learn(8_000)
    seen = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    actions, _ = agent.predict(seen, deterministic=True)
    everything = decision.all_allowed(4)
    decided = make_encoding("box", decision).decode(actions, everything, generators=[np.random.default_rng(0)] * 4)
    for options in decided.choices.T:
        np.testing.assert_array_equal(options, seen[:, 0])
    for numbers in decided.numbers.T:
        np.testing.assert_allclose(numbers, seen[:, 1] - 0.5, atol=0.25)


NO_DECISIONS: list[dict[str, Any]] = [
    {"choices": [3], "numbers": 1},
    {"choices": [3], "numbers": 1, "names": ["a"]},
    {"choices": [10**9], "numbers": 1, "names": ["a", "b"]},
]


@pytest.mark.parametrize("content", NO_DECISIONS, ids=["no names", "one name", "large"])
def test_a_file_with_no_decision_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its policy has a space"):
        decode_space({"DecisionBox": content})


def test_a_hybrid_bandit_is_solved() -> None:
    """The optimum is 1, the right layer with a constant step 0.6, and the best constant action 0.25."""
    env = Bandit()
    agent = PPO(
        HybridPolicy,
        env,
        n_steps=8,
        batch_size=128,
        n_epochs=6,
        learning_rate=5e-3,
        policy_kwargs={"net_arch": [32], "log_std_init": -0.5},
        device="cpu",
        seed=0,
    )
    agent.learn(10_000)
    actions, _ = agent.predict(np.eye(CHOICES, dtype=np.float32), deterministic=True)
    np.testing.assert_array_equal(actions[:, :-1].argmax(axis=1), np.arange(CHOICES))
    assert 1.0 - np.abs(actions[:, -1] - env.best_steps).mean() > 0.85


def test_single_environments_take_it_too() -> None:
    agent = PPO(HybridPolicy, gym.make("NetBuild-v0", **SMALL), n_steps=8, batch_size=8, device="cpu", seed=0)
    assert isinstance(agent.policy, ActorCriticPolicy)
    agent.learn(16)
    assert agent.num_timesteps == 16


@pytest.mark.parametrize("env_id", ["NetBuild-v0", "NetBuildMultiDiscrete-v0"])
def test_step_sizes_of_each_position_are_learned_saved_and_evaluated(env_id: str, tmp_path: Path) -> None:
    envs = make_vec_env(env_id, n_envs=2, step_sizes="layer", optimizer="adam", batch_size=2, **SMALL)
    kind = HybridPolicy if env_id == "NetBuild-v0" else "MlpPolicy"
    agent = PPO(kind, envs, n_steps=8, batch_size=8, device="cpu", seed=0)
    logged = ChoicesCallback()
    agent.learn(32, callback=logged, log_interval=100)
    assert agent.logger.name_to_value["choices/log10_step_size_std"] > 0.0
    learner = MetaLearner.from_sb3(agent)
    learner.save(tmp_path / "learner")
    results = [
        evaluate(each, "sinusoid", tasks=4, steps=(5,)).values(5)
        for each in (learner, MetaLearner.load(tmp_path / "learner"))
    ]
    np.testing.assert_array_equal(results[0], results[1])
    for name, other in (("step_sizes", "single"), ("optimizer", "sgd")):
        with pytest.raises(ValueError, match=f"^arguments: .*{name if name == 'optimizer' else 'actions'}"):
            replace(learner, policy=agent, arguments=learner.arguments | {name: other})

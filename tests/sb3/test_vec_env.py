"""Stable-Baselines3 on the native vector environment: contract, wrappers, callbacks, and all thirteen algorithms."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import gym_reml
from agents.reml.algorithms import ENCODINGS, WIDE
from gym_reml.evaluation.meta_learner import ALGORITHMS, find_algorithm
from gym_reml.pool import LayerPool
from gym_reml.sb3 import NativeVecEnv, make_vec_env
from tests.support.env_helpers import MIXTURE, SMALL, assert_same, sample_actions

pytestmark = pytest.mark.filterwarnings("error")
COUNT = 4
HORIZON = 3
ARGUMENTS = SMALL | {"horizon": HORIZON}


def tiny() -> dict[str, Any]:
    """Arguments of a small agent; new objects at each call, since some algorithms write into `policy_kwargs`."""
    return {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}


def make(**arguments: Any) -> Any:
    return make_vec_env("NetBuild-v0", **({"n_envs": COUNT, "seed": 0} | ARGUMENTS | arguments))


# -- the rules of VecEnv ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NetBuild-v0", "gym_reml:NetBuildDiscrete-v0", "NetBuildMultiDiscrete-v0"])
def test_made_by_id(name: str) -> None:
    envs = make_vec_env(name, n_envs=COUNT, **ARGUMENTS)
    assert isinstance(envs, VecMonitor)
    single = gym.make(name, **ARGUMENTS)
    assert (envs.num_envs, envs.action_space) == (COUNT, single.action_space)
    assert envs.observation_space == single.observation_space
    observations: Any = envs.reset()
    assert len(observations) == COUNT
    assert single.observation_space.contains(observations[0])


def test_an_unknown_id_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"env_id='CartPole-v1'.*'NetBuild-v0'.*'NetBuildHybrid-v0'"):
        make_vec_env("CartPole-v1")


@pytest.mark.parametrize("arguments", [{"env_id": "NetBuildHybrid-v0"}, {"action": "hybrid"}])
def test_hybrid_actions_are_refused_with_the_remedy(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"action='hybrid'.*'box', 'multidiscrete' or 'discrete'"):
        make_vec_env(**ARGUMENTS, **arguments)


def test_another_autoreset_mode_is_refused() -> None:
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=2, **ARGUMENTS)
    with pytest.raises(ValueError, match="autoreset_mode='NextStep', must be 'SameStep'"):
        NativeVecEnv(envs)
    with pytest.raises(ValueError, match="autoreset_mode='NextStep': must be 'SameStep'"):
        make_vec_env(autoreset_mode="NextStep", **ARGUMENTS)
    assert make_vec_env(autoreset_mode="SameStep", **ARGUMENTS).num_envs == 1


def test_rows_are_single_environments() -> None:
    """Row i of seed s is the single environment of seed s + i: observations, rewards, ends and infos."""
    envs = make(seed=5).venv
    singles = [gym.make("NetBuild-v0", **ARGUMENTS).unwrapped for _ in range(COUNT)]
    first = [env.reset(seed=5 + row) for row, env in enumerate(singles)]
    np.testing.assert_allclose(envs.reset(), [observation for observation, _ in first], rtol=2e-4, atol=2e-4)
    assert_same(envs.reset_infos, [info for _, info in first], 2e-4)
    for actions in sample_actions(gym.vector.utils.batch_space(envs.action_space, COUNT), 2 * HORIZON + 1):
        observations, rewards, dones, infos = envs.step(actions)
        assert (rewards.dtype, rewards.shape) == (np.dtype(np.float32), (COUNT,))
        for row, env in enumerate(singles):
            observation, reward, terminated, _, info = env.step(actions[row])
            assert rewards[row] == pytest.approx(reward, rel=2e-4, abs=2e-4)
            assert dones[row] == terminated
            assert infos[row].pop("TimeLimit.truncated") is False
            if terminated:
                last = infos[row].pop("terminal_observation")
                np.testing.assert_allclose(last, observation, rtol=2e-4, atol=2e-4)
                observation, reset_info = env.reset()
                assert_same(envs.reset_infos[row], reset_info, 2e-4)
            assert_same(infos[row], info, 2e-4)
            np.testing.assert_allclose(observations[row], observation, rtol=2e-4, atol=2e-4)


def test_rows_that_end_at_different_times_keep_their_own_infos() -> None:
    envs = make(n_envs=2, seed=5).venv
    envs.reset()
    action = np.zeros((2, 5), dtype=np.float32)
    envs.step(action)
    envs.unwrapped.env.reset(options={"reset_mask": np.array([True, False])})
    envs.step(action)
    _, _, dones, infos = envs.step(action)
    assert dones.tolist() == [False, True]
    assert "terminal_observation" in infos[1]
    assert set(infos[1]) - set(infos[0]) == {"terminal_observation"}
    assert {"layer", "step_size", "reward_terms", "query_loss", "task"} <= set(infos[0])


def test_episode_statistics() -> None:
    envs = make()
    envs.reset()
    returns = np.zeros(COUNT)
    for actions in sample_actions(gym.vector.utils.batch_space(envs.action_space, COUNT), HORIZON):
        _, rewards, dones, infos = envs.step(actions)
        returns += rewards
    assert dones.all()
    assert [info["episode"]["l"] for info in infos] == [HORIZON] * COUNT
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], returns, rtol=1e-4)


def test_seeds_are_used_once() -> None:
    envs = make(n_envs=2, seed=None)
    envs.seed(3)
    first, second = envs.reset(), envs.reset()
    assert not np.array_equal(first, second)
    envs.seed(3)
    np.testing.assert_array_equal(envs.reset(), first)
    np.testing.assert_array_equal(make(n_envs=2, seed=3).reset(), first)


def test_attributes_are_shared_by_all_rows() -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3)
    for envs in (make(pool=pool, learn="maml"), VecNormalize(make(pool=pool, learn="maml"))):
        assert envs.get_attr("pool") == [pool] * COUNT
        assert envs.get_attr("pool", indices=[1, 2]) == [pool] * 2
        assert envs.get_attr("learning", indices=0) == [True]
        assert envs.has_attr("action_encoding")
        assert not envs.has_attr("no_such_thing")
        with pytest.raises(AttributeError, match="no_such_thing"):
            envs.get_attr("no_such_thing")
        envs.set_attr("learning", False)
        assert envs.get_attr("learning") == [False] * COUNT
        with pytest.raises(ValueError, match="all rows share"):
            envs.set_attr("learning", True, indices=[0])
        assert envs.env_is_wrapped(gym.Wrapper) == [False] * COUNT


PER_ROW_IDS = [env_id for env_id in gym_reml.REGISTRATIONS if "Hybrid" not in env_id]
every_row_id = pytest.mark.parametrize("env_id", PER_ROW_IDS)
OWN = {"mdp", "trials", "tuning", "process", "pool", "action_encoding"}
"""Objects that each single environment has, and that rows share."""


@every_row_id
def test_attributes_are_those_of_single_environments(env_id: str) -> None:
    """SB3's contract: one value for each environment, the one that DummyVecEnv gives; or an AttributeError."""
    ours, theirs = make_vec_env(env_id, n_envs=2), DummyVecEnv([lambda: gym.make(env_id)] * 2)
    ours.reset()
    refused = set()
    for name in dir(theirs.envs[0].unwrapped):
        if name.startswith("_"):
            continue
        expected = theirs.get_attr(name)
        if not ours.has_attr(name):
            with pytest.raises(AttributeError, match=name):
                ours.get_attr(name)
            refused.add(name)
        elif inspect.ismethod(expected[0]):
            assert all(map(callable, ours.get_attr(name)))
        elif name in OWN:
            assert [type(value) for value in ours.get_attr(name)] == [type(value) for value in expected]
        else:
            assert ours.get_attr(name) == expected, name
    assert refused == {"np_random", "np_random_seed", "unwrapped", *WRAPPERS_METHODS} & set(dir(theirs.envs[0]))
    for name in ("num_envs", "single_action_space", "autoreset_mode", "closed"):
        assert not ours.has_attr(name)
    assert ours.env_method("get_wrapper_attr", "render_mode", indices=1) == [None]
    for name in ("action_space", "observation_space", "spec", "metadata", "num_envs", "reset", "np_random"):
        with pytest.raises(ValueError, match=f"attr_name='{name}': cannot be set"):
            ours.set_attr(name, None)


WRAPPERS_METHODS = {"get_wrapper_attr", "has_wrapper_attr", "set_wrapper_attr"}


@every_row_id
@pytest.mark.parametrize("method", ["reset", "step", "close", "_restart", "close_extras"])
def test_methods_of_all_rows_are_not_called_for_one(env_id: str, method: str) -> None:
    envs = make_vec_env(env_id, n_envs=2)
    envs.reset()
    own = {"training": "'action_masks', 'describe_task', 'export', ", "tuning": "'export', ", "trial": ""}
    choices = f"{own[gym_reml.REGISTRATIONS[env_id].process]}'render'"
    with pytest.raises(ValueError, match=f"method_name='{method}'.*choices: {choices}"):
        envs.env_method(method)
    with pytest.raises(AttributeError, match="no_such_thing"):
        envs.env_method("no_such_thing")


def test_marked_methods_return_one_result_per_row() -> None:
    envs = make(n_envs=2, render_mode="ansi", **{"family": "mixture", "family_kwargs": {"members": ["step", "linear"]}})
    envs.reset()
    native = envs.unwrapped.env
    assert envs.env_method("render", indices=[1]) == [native.render()[1]]
    assert envs.env_method("describe_task") == [native.describe_task(row) for row in range(2)]
    assert envs.get_attr("describe_task", indices=1)[0]() == native.describe_task(1)
    inputs = native.mdp.query.inputs
    for row, network in enumerate(envs.env_method("export")):
        assert torch.equal(network(inputs[row]), native.mdp.outputs(inputs)[row])
    quiet = make(n_envs=2)
    quiet.reset()
    assert quiet.env_method("render") == [None, None]


def test_rows_may_have_options_of_their_own() -> None:
    envs = make(n_envs=2).unwrapped
    tasks = [{"amplitude": 1.0, "phase": 0.5}, {"amplitude": 3.0, "phase": 2.0}]
    envs.set_options([{"task": task} for task in tasks])
    envs.reset()
    assert [info["task"] for info in envs.reset_infos] == tasks
    envs.set_options({"task": tasks[1]})
    envs.reset()
    assert [info["task"] for info in envs.reset_infos] == [tasks[1]] * 2
    envs.reset()
    assert [info["task"] for info in envs.reset_infos] != [tasks[1]] * 2
    for options in ([{"task": tasks[0]}, {}], [{"pool": "initial"}, {}], [{}, {"pool": "initial"}]):
        envs.set_options(options)
        with pytest.raises(ValueError, match="rows may differ only in 'task'"):
            envs.reset()


@pytest.mark.parametrize("encoding", ["multidiscrete", "discrete"])
def test_masks_are_found_through_wrappers(encoding: str) -> None:
    envs = VecNormalize(make(action=encoding, depth=1))
    envs.reset()
    assert envs.has_attr("action_masks")
    assert is_masking_supported(envs)
    append, nothing = ([2, 0], [0, 0]) if encoding == "multidiscrete" else (2 * 13, 0)
    envs.step(np.array([append, nothing, append, nothing]))
    masks = envs.env_method("action_masks")
    assert len(masks) == COUNT
    assert [mask.all() for mask in masks] == [False, True, False, True]
    assert envs.env_method("action_masks", indices=[2])[0].tolist() == masks[2].tolist()
    np.testing.assert_array_equal(get_action_masks(envs), np.stack(masks))


def test_frames_are_tiled() -> None:
    envs = make(render_mode="rgb_array")
    envs.reset()
    assert len(envs.get_images()) == COUNT
    assert np.shape(envs.render()) == (2 * 560, 2 * 896, 3)
    for mode in ("ansi", None):
        envs = make(render_mode=mode)
        envs.reset()
        with pytest.warns(UserWarning, match="only 'rgb_array' gives images"):
            assert envs.get_images() == [None] * COUNT


def test_steps_are_those_of_single_environments() -> None:
    """SB3's contract: the same outcome of a step as DummyVecEnv's, with and without time limit."""
    for limit in (None, 2):
        cut: dict[str, Any] = {} if limit is None else {"max_episode_steps": limit}
        ours = make(seed=5, **cut).venv
        theirs = DummyVecEnv([lambda cut=cut: gym.make("NetBuild-v0", **ARGUMENTS, **cut)] * COUNT)  # type: ignore[misc]
        theirs.seed(5)
        assert_same(ours.reset(), theirs.reset(), 2e-4)
        actions = sample_actions(gym.vector.utils.batch_space(ours.action_space, COUNT), 2 * HORIZON + 1)
        for action in actions:
            assert_same(ours.step(action), theirs.step(action), 2e-4)
            assert_same(ours.reset_infos, theirs.reset_infos, 2e-4)


# -- wrappers, callbacks, files --------------------------------------------------------------------------------------


def test_the_four_lines_of_the_readme() -> None:
    agent = PPO("MlpPolicy", make_vec_env("NetBuild-v0", n_envs=64, pool="random"), n_steps=2, device="cpu")
    agent.learn(128)
    assert agent.num_timesteps == 128


def test_evaluation_during_training_and_going_on_from_a_file(tmp_path: Path) -> None:
    training = VecNormalize(make(), gamma=1.0)
    evaluation = VecNormalize(make(family_kwargs={"split": "validation"}), training=False, norm_reward=False)
    callback = EvalCallback(
        evaluation, n_eval_episodes=COUNT, eval_freq=8, best_model_save_path=str(tmp_path), verbose=0
    )
    agent = PPO("MlpPolicy", training, n_steps=8, batch_size=8, n_epochs=1, **tiny())
    agent.learn(64, callback=callback)
    assert np.isfinite(callback.last_mean_reward)
    one, other = evaluation.obs_rms, training.obs_rms
    assert isinstance(one, RunningMeanStd)
    assert isinstance(other, RunningMeanStd)
    np.testing.assert_allclose(one.mean, other.mean, err_msg="the callback keeps them equal")
    agent.save(tmp_path / "agent")
    training.save(str(tmp_path / "normaliser.pkl"))

    wrapped = VecNormalize.load(str(tmp_path / "normaliser.pkl"), make())
    again = PPO.load(tmp_path / "agent", env=wrapped, device="cpu")
    observation = wrapped.reset()
    np.testing.assert_array_equal(
        again.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )
    before = again.policy.state_dict()["action_net.weight"].clone()
    again.learn(32, reset_num_timesteps=False)
    assert again.num_timesteps == 64 + 32
    assert not torch.equal(before, again.policy.state_dict()["action_net.weight"])
    assert PPO.load(tmp_path / "best_model", device="cpu").num_timesteps >= 32


def test_policies_are_evaluated_alike_in_single_environments() -> None:
    """SB3's own wrapper around single environments and the native one: the same returns for the same seeds."""
    agent = PPO("MlpPolicy", make(), n_steps=8, batch_size=8, **tiny())
    envs = make()
    returns, lengths = evaluate_policy(agent, envs, n_eval_episodes=COUNT, return_episode_rewards=True)
    assert lengths == [HORIZON] * COUNT
    expected = []
    for row in range(COUNT):
        env = gym.make("NetBuild-v0", **ARGUMENTS)
        observation, _ = env.reset(seed=row)
        total, done = 0.0, False
        while not done:
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, done, _, _ = env.step(action)
            total += float(reward)
        expected.append(total)
    np.testing.assert_allclose(np.sort(returns), np.sort(expected), rtol=1e-3)


@pytest.mark.parametrize("family", [{}, MIXTURE], ids=["sinusoid", "mixture"])
def test_dict_observations_have_policies_too(family: dict[str, Any]) -> None:
    envs = VecNormalize(make(observation="dict", **family))
    agent = PPO("MultiInputPolicy", envs, n_steps=8, batch_size=8, n_epochs=1, **tiny())
    agent.learn(64)
    assert agent.num_timesteps == 64
    replaying = DQN(
        "MultiInputPolicy",
        make(observation="dict", action="discrete"),
        buffer_size=400,
        learning_starts=8,
        batch_size=8,
        **tiny(),
    )
    replaying.learn(64)
    assert replaying.replay_buffer is not None
    # The next observation of a last step is the episode's own last, not the next one's first.
    buffer: Any = replaying.replay_buffer
    ended = np.argwhere(buffer.dones[: buffer.pos] > 0)
    assert len(ended) > 0
    for place, row in ended:
        np.testing.assert_array_equal(buffer.next_observations["progress"][place, row, 1], np.float32(2 / HORIZON))
    assert not buffer.timeouts[: buffer.pos].any()


def test_masked_choices_are_never_sampled() -> None:
    envs = make(action="multidiscrete", depth=1)
    agent = MaskablePPO("MlpPolicy", envs, n_steps=8, batch_size=8, n_epochs=1, **tiny())
    agent.learn(64)
    buffer = agent.rollout_buffer
    actions, masks = buffer.actions.reshape(-1, 2).astype(int), buffer.action_masks.reshape(len(buffer.actions), -1)
    assert not masks.all(), "networks of one layer are full soon"
    assert masks[np.arange(len(masks)), actions[:, 0]].all()


# -- the thirteen ----------------------------------------------------------------------------------------------------

ON_POLICY: dict[str, Any] = {"n_steps": 8, "batch_size": 8}
OFF_POLICY: dict[str, Any] = {"buffer_size": 256, "learning_starts": 16, "batch_size": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("PPO", "MaskablePPO", "RecurrentPPO", "TRPO"), ON_POLICY),
    **dict.fromkeys(("DQN", "QRDQN", "SAC", "TD3", "DDPG", "TQC", "CrossQ"), OFF_POLICY),
    "A2C": {"n_steps": 8},
    "ARS": {"n_delta": 2},
}
NAMES = [name for names in ALGORITHMS.values() for name in names]


def test_all_thirteen_have_an_encoding() -> None:
    assert len(NAMES) == 13
    assert set(NAMES) == set(ENCODINGS)
    assert WIDE["policy_kwargs"]["net_arch"]


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_learns(name: str, tmp_path: Path) -> None:
    envs = make(action=ENCODINGS[name])
    policy, kwargs = "MlpPolicy", tiny()
    if name == "RecurrentPPO":
        policy, kwargs["policy_kwargs"] = "MlpLstmPolicy", {"net_arch": [8], "lstm_hidden_size": 8}
    elif name == "ARS":
        policy = "LinearPolicy"
        del kwargs["policy_kwargs"]
    agent = find_algorithm(name)(policy, envs, **SETTINGS[name], **kwargs)
    before = {key: value.clone() for key, value in agent.policy.state_dict().items()}
    agent.learn(200)
    assert agent.num_timesteps >= 200
    after = agent.policy.state_dict()
    assert any(not torch.equal(before[key], value) for key, value in after.items())
    assert all(value.isfinite().all() for value in after.values())
    agent.save(tmp_path / "agent")
    again = find_algorithm(name).load(tmp_path / "agent", env=make(action=ENCODINGS[name]), device="cpu")
    again.learn(40, reset_num_timesteps=False)
    assert again.num_timesteps >= 240


def test_off_policy_buffers_store_terminations() -> None:
    """Every end is a termination, so values are not bootstrapped."""
    agent = DQN("MlpPolicy", make(action="discrete"), buffer_size=400, learning_starts=8, batch_size=8, **tiny())
    agent.learn(80)
    buffer: Any = agent.replay_buffer
    dones = buffer.dones[: buffer.pos]
    np.testing.assert_array_equal(dones.sum(axis=0), buffer.pos // HORIZON)
    assert not buffer.timeouts[: buffer.pos].any()

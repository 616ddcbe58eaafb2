"""Tianshou on the native vector environment: its own vector environment over single ones is what it must equal."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("tianshou")

from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import BaseVectorEnv, DummyVectorEnv, VectorEnvNormObs
from tianshou.utils.net.common import Net

from gym_reml.tianshou import NativeVectorEnv, make_vec_env

COUNT, HORIZON = 4, 3


def made(env_id: str = "NetBuildDiscrete-v0", **arguments: Any) -> Any:
    return make_vec_env(env_id, COUNT, horizon=HORIZON, **arguments)


@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("NetBuild-v0", {"horizon": HORIZON}),
        ("NetBuildDiscrete-v0", {"horizon": HORIZON}),
        ("NetBuildMultiDiscrete-v0", {"horizon": HORIZON, "observation": "dict"}),
        ("BanditTrial-v0", {}),
    ],
)
def test_equals_tianshous_own(env_id: str, arguments: dict[str, Any]) -> None:
    """Observations, rewards, ends and infos, with rows that are reset when they end."""
    ours: Any = make_vec_env(env_id, COUNT, **arguments)
    theirs: Any = DummyVectorEnv([lambda: gym.make(env_id, **arguments)] * COUNT)
    assert isinstance(ours, BaseVectorEnv)
    assert (len(ours), ours.is_async) == (len(theirs), theirs.is_async)
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    assert ours.seed(7) == theirs.seed(7)
    space = ours.action_space[0]
    space.seed(0)
    for env in (ours, theirs):
        env.seed(7)
    for _ in range(2 * HORIZON + 1):
        actions = np.stack([space.sample() for _ in range(COUNT)])
        mine, other = ours.step(actions), theirs.step(actions)
        assert_equal(mine[0], other[0])
        for one, two in zip(mine[1:4], other[1:4], strict=True):
            np.testing.assert_allclose(one, two, atol=2e-4)
        assert [set(info) for info in mine[4]] == [set(info) for info in other[4]]
        assert [info["env_id"] for info in mine[4]] == list(range(COUNT))
        ended = np.flatnonzero(mine[2] | mine[3])
        if len(ended):
            assert_equal(ours.reset(ended)[0], theirs.reset(ended)[0])


def assert_equal(one: Any, two: Any) -> None:
    assert (one.shape, one.dtype) == (two.shape, two.dtype)
    for mine, other in zip(one, two, strict=True):
        parts = mine if isinstance(mine, dict) else {"": mine}
        for name, part in parts.items():
            np.testing.assert_allclose(part, other[name] if isinstance(mine, dict) else other, atol=2e-4)


def test_rows_left_out_must_be_reset() -> None:
    env = made()
    env.seed(0)
    actions = np.zeros(COUNT, dtype=np.int64)
    observation, *_, infos = env.step(actions[:2], [0, 2])
    assert len(observation) == 2
    assert [info["env_id"] for info in infos] == [0, 2]
    with pytest.raises(ValueError, match=r"rows \[1, 3\] were left out"):
        env.step(actions)
    env.reset([1, 3])
    env.step(actions)
    with pytest.raises(ValueError, match="3 actions given for 4 rows"):
        env.step(actions[:3])


def test_a_pool_learns_from_no_episode_of_rows_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait for the others' last episodes hand over none."""
    env = made(pool="random", learn="fomaml")
    env.seed(0)
    finished: list[int] = []
    learner = env.get_env_attr("mdp")[0].learner
    monkeypatch.setattr(learner, "add", lambda episodes: finished.append(len(episodes)))
    for _ in range(HORIZON):
        env.step(np.zeros(1, dtype=np.int64), [0])
    assert finished == [1]
    # Left out of the last step alone.
    env.reset()
    for _ in range(HORIZON - 1):
        env.step(np.zeros(COUNT, dtype=np.int64))
    env.step(np.zeros(1, dtype=np.int64), [0])
    assert finished == [1, 1]


def test_single_steps_that_a_pool_learns_from_are_taken_by_all_rows() -> None:
    env: Any = make_vec_env("NetBuildDiscrete-v0", COUNT, horizon=1, pool="random", learn="fomaml")
    env.seed(0)
    env.step(np.zeros(COUNT, dtype=np.int64))
    env.reset()
    with pytest.raises(ValueError, match="only 1 of 4 rows given"):
        env.step(np.zeros(1, dtype=np.int64), [0])


def test_collects_steps_and_episodes() -> None:
    """As Tianshou's collectors do it: whole episodes, of which the last leave rows out."""
    env = made()
    env.seed(0)
    space = env.action_space[0]
    network = Net(state_shape=env.observation_space[0].shape, action_shape=(int(space.n),), hidden_sizes=[8])
    policy = DiscreteQLearningPolicy(model=network, action_space=space, eps_training=0.5)
    algorithm: Any = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3))
    collector: Any = Collector(algorithm, env, VectorReplayBuffer(200, COUNT), exploration_noise=True)
    collector.reset()
    stats = collector.collect(n_step=3 * HORIZON * COUNT)
    assert stats.n_collected_steps == 3 * HORIZON * COUNT
    for episodes in (COUNT + 1, COUNT - 1, 3 * COUNT):
        stats = collector.collect(n_episode=episodes, reset_before_collect=True)
        assert (stats.n_collected_episodes, set(stats.lens)) == (episodes, {HORIZON})
    assert VectorEnvNormObs(env).reset()[0].shape == (COUNT, *env.observation_space[0].shape)


def test_attributes_and_frames() -> None:
    env = made(render_mode="ansi")
    env.seed(0)
    assert env.get_env_attr("horizon_of_nothing", []) == []
    assert len(env.get_env_attr("pool")) == COUNT
    assert all(isinstance(frame, str) for frame in env.render())
    with pytest.raises(ValueError, match="all rows share"):
        env.set_env_attr("learning", False, [0])
    env.close()
    with pytest.raises(AssertionError, match="after close"):
        env.reset()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="autoreset_mode='SameStep': must be 'Disabled'"):
        made(autoreset_mode="SameStep")
    with pytest.raises(ValueError, match="output='torch': must be 'numpy' here"):
        made(output="torch")
    with pytest.raises(ValueError, match="must be 'Disabled'"):
        NativeVectorEnv(gym.make_vec("NetBuild-v0", num_envs=2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no policies for Dict actions"):
        make_vec_env("NetBuildHybrid-v0")
    with pytest.raises(ValueError, match="DummyVectorEnv"):
        make_vec_env("CartPole-v1")

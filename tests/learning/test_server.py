"""One pool for several processes: what a server learns is what one learner would, whatever happens to processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from gym_reml.learning import DeliveringLearner, Delivery, Episodes, LearningOptions, PoolLearner, PoolServer
from gym_reml.learning import server as server_module
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks import make_family

FAMILY = make_family("sinusoid", queries=10)
OPTIONS = LearningOptions(batch_size=4)


def tiny_pool() -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=6, layers=2, seed=0)


def server(folder: Path, rule: str = "maml", options: LearningOptions = OPTIONS) -> PoolServer:
    return PoolServer(tiny_pool(), FAMILY, rule, options, folder)


def runner(number: int, envs: int = 3, **arguments: Any) -> Any:
    """A vector environment whose episodes are to be delivered."""
    env: Any = gym.make_vec(
        "NetBuild-v0", num_envs=envs, pool=tiny_pool(), family=FAMILY, horizon=2, learn="maml", **arguments
    ).unwrapped
    env.mdp.learn_by(DeliveringLearner(env.mdp.learner, number))
    env.reset(seed=10 * number)
    env.action_space.seed(number)
    return env


def play(env: Any, steps: int) -> None:
    for _ in range(steps):
        env.step(env.action_space.sample())


def finished(count: int, seed: int) -> Episodes:
    """Episodes of an environment, as a learner gets them."""
    env, found = runner(seed, count), list[Episodes]()
    env.mdp.learner.add = found.append
    play(env, 2)
    return found[0]


def tensors(pool: LayerPool) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in pool.trainable().items()}


def equal(one: LayerPool, other: LayerPool) -> bool:
    return all(torch.equal(tensor, other.trainable()[name]) for name, tensor in one.trainable().items())


@pytest.mark.parametrize("rule", ["maml", "fomaml", "reptile", "in_place"])
def test_a_server_learns_what_one_learner_learns_from_the_same_episodes(tmp_path: Path, rule: str) -> None:
    """In the order of the runners, not of their deliveries; and the episodes left over come first in the next round."""
    shared, alone = server(tmp_path, rule), PoolLearner(tiny_pool(), FAMILY, rule, OPTIONS)
    first, second, third = finished(3, 1), finished(3, 2), finished(2, 1)
    shared.deliver(Delivery((2, "b"), 0, 0, second))
    shared.deliver(Delivery((1, "a"), 0, 0, first))
    assert shared.learn()["counts"]["updates"] == shared.learner.updates > 0
    rest = shared.state()["waiting"]
    assert [len(Episodes.from_state(one["episodes"])) for one in rest] == [2]
    shared.deliver(Delivery((2, "b"), 1, shared.learner.updates, third))
    shared.learn()
    for episodes in (first, second, third):
        alone.add(episodes)
    assert shared.learner.used == alone.used == 8 * (2 if "maml" in rule else 1)
    assert equal(shared.learner.pool, alone.pool)


def test_a_delivery_counts_once(tmp_path: Path) -> None:
    """After a restart, calls are repeated of which nobody knows whether they were done."""
    shared = server(tmp_path)
    for number in (0, 0, 1, 0):
        shared.deliver(Delivery((1, "a"), number, 0, finished(2, number)))
    shared.learn()
    assert shared.learner.used == 4 * 2, "two deliveries of two episodes, each used twice"
    after = tensors(shared.learner.pool)
    shared.deliver(Delivery((1, "a"), 1, 0, finished(2, 1)))
    shared.learn()
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors(shared.learner.pool).items())


def test_a_delivery_that_could_not_be_stored_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, delivery = server(tmp_path), Delivery((1, "a"), 0, 0, finished(4, 0))

    def full(content: Any, path: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(server_module, "save_atomically", full)
        with pytest.raises(OSError, match="no space"):
            shared.deliver(delivery)
    shared.deliver(delivery)
    again = server(tmp_path)
    again.learn()
    assert again.learner.used == 2 * 4, "each used twice"


@pytest.mark.parametrize("lost_after", ["deliver", "learn", "store"])
def test_a_server_that_is_lost_goes_on_where_it_was(tmp_path: Path, lost_after: str) -> None:
    """Nothing of it is left but its folder; in the last case files of deliveries are left that it learned from."""

    def course(folder: Path, lose: Callable[[PoolServer, str], PoolServer]) -> PoolServer:
        shared = server(folder)
        for turn in range(3):
            shared.deliver(Delivery((1, "a"), turn, 0, finished(3, turn)))
            shared = lose(shared, "deliver")
            shared.learn()
            shared = lose(shared, "learn")
        return shared

    def lose(shared: PoolServer, after: str) -> PoolServer:
        if lost_after == "store" and after == "deliver":
            copies = {path: path.read_bytes() for path in shared.folder.glob("*-*.pt")}
            shared.learn()
            for path, content in copies.items():
                path.write_bytes(content)
            return server(shared.folder)
        return server(shared.folder) if after == lost_after else shared

    steady = course(tmp_path / "steady", lambda shared, _: shared)
    tried = course(tmp_path / "tried", lose)
    assert equal(steady.learner.pool, tried.learner.pool)
    assert steady.learner.used == tried.learner.used == 16
    assert len(list((tmp_path / "tried").glob("*-*.pt"))) == 0


def test_a_state_goes_to_another_server(tmp_path: Path) -> None:
    shared, other = server(tmp_path / "one"), server(tmp_path / "other")
    shared.deliver(Delivery((1, "a"), 0, 0, finished(5, 0)))
    shared.learn()
    assert other.load_state(shared.state())["counts"] == shared.weights()["counts"]
    for one in (shared, other):
        one.deliver(Delivery((1, "a"), 1, 0, finished(3, 1)))
        one.learn()
    assert equal(shared.learner.pool, other.learner.pool)
    assert shared.learner.updates == 4


def test_runners_deliver_once_there_is_a_server_and_take_its_weights(tmp_path: Path) -> None:
    shared, envs = server(tmp_path), [runner(number) for number in (1, 2)]
    for env in envs:
        play(env, 2)
        env.mdp.learner.deliver()
        assert env.mdp.learner.updates == 0
    for env in envs:
        env.mdp.learner.send = shared.deliver
        env.mdp.learner.deliver()
    weights = shared.learn()
    for env in envs:
        env.mdp.learner.take(weights)
        assert equal(env.pool, shared.learner.pool)
        assert env.mdp.learner.updates == 2
    assert not equal(shared.learner.pool, tiny_pool())
    with pytest.raises(ValueError, match="pool='initial'"):
        envs[0].reset(options={"pool": "initial"})


@pytest.mark.filterwarnings("ignore:learn='maml'. most episodes")
def test_data_of_an_older_pool_are_left_out(tmp_path: Path) -> None:
    """Where the data depend on the network: episodes that began before an update, by server and runner."""
    family = make_family("navigation", shots=2, queries=2)
    arguments: dict[str, Any] = {"pool": "random", "width": 6, "layers": 2, "horizon": 2, "learn": "maml"}
    env: Any = gym.make_vec("NetBuild-v0", num_envs=2, family=family, **arguments).unwrapped
    learner = DeliveringLearner(env.mdp.learner, 1)
    shared = PoolServer(env.pool.clone(), family, "maml", LearningOptions(batch_size=2), tmp_path)
    learner.send = shared.deliver
    env.mdp.learn_by(learner)
    env.reset(seed=0)
    play(env, 2)
    learner.deliver()
    late = Delivery((2, "b"), 0, 0, Episodes.from_state(shared.state()["waiting"][0]["episodes"]))
    assert shared.learn()["counts"] == {"updates": 1, "used": 2, "dropped": 0, "stale": 0}
    shared.deliver(late)
    assert shared.learn()["counts"] == {"updates": 1, "used": 2, "dropped": 0, "stale": 2}
    env.reset()
    play(env, 1)
    learner.take(shared.weights())
    play(env, 1)
    assert learner.stale == 2
    env.reset()
    play(env, 2)
    learner.deliver()
    assert learner.stale == 0
    assert shared.learn()["counts"] == {"updates": 2, "used": 4, "dropped": 0, "stale": 4}


def test_episodes_are_plain_data(tmp_path: Path) -> None:
    episodes = finished(2, 0)
    torch.save(episodes.state(), tmp_path / "episodes.pt")
    again = Episodes.from_state(torch.load(tmp_path / "episodes.pt", weights_only=True))
    assert again.initial_layers == episodes.initial_layers
    np.testing.assert_array_equal(again.step_sizes, episodes.step_sizes)
    np.testing.assert_array_equal(again.support[0].inputs, episodes.support[0].inputs)

"""One pool for all env runners of an algorithm, whatever happens to their processes, and to that of its server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

ray = pytest.importorskip("ray", reason='needs RLlib: pip install "ray[rllib]"')
pytest.importorskip("ray.rllib", reason='needs RLlib: pip install "ray[rllib]"', exc_type=ImportError)

from ray.rllib.algorithms.ppo import PPO, PPOConfig  # noqa: E402

from gym_reml.rllib import SharedPoolCallback, share_pool  # noqa: E402

pytestmark = pytest.mark.slow

BATCH, HORIZON, ENVS = 8, 5, 8
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def config(runners: int, **env_config: Any) -> PPOConfig:
    return (
        PPOConfig()
        .environment("NetBuild-v0", env_config=env_config)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=ENVS, rollout_fragment_length=2 * HORIZON)
        .training(train_batch_size_per_learner=2 * HORIZON * ENVS * max(1, runners), minibatch_size=80, num_epochs=1)
        .debugging(seed=0)
    )


def learning(runners: int) -> PPOConfig:
    found: PPOConfig = share_pool(config(runners, learn="maml", learn_kwargs={"batch_size": BATCH}))
    return found


def seen(env_runner: Any) -> tuple[float, int] | None:
    """Sum of the weights of an env runner's pool, and the updates that it knows of."""
    if env_runner.env is None:
        return None
    env = env_runner.env.unwrapped
    return float(sum(tensor.double().sum() for tensor in env.pool.trainable().values())), env.mdp.learner.updates


def on_all(algorithm: Any) -> list[tuple[float, int]]:
    return [one for one in algorithm.env_runner_group.foreach_env_runner(seen) if one is not None]


def end_second(env_runner: Any) -> None:
    if env_runner.worker_index == 2:
        os._exit(1)


def test_two_env_runners_learn_one_pool_through_every_loss(tmp_path: Path) -> None:
    with_evaluation = learning(2).evaluation(
        evaluation_num_env_runners=1,
        evaluation_duration=ENVS,
        evaluation_config={"env_config": {"learn": "maml", "family_kwargs": {"split": "validation"}}},
    )
    algorithm = with_evaluation.build_algo()
    start = on_all(algorithm)
    assert len(start) == 2
    assert start[0] == start[1]
    counts = algorithm.train()["shared_pool"]
    # Two rows of episodes of each environment, each used twice.
    assert counts["used"] + counts["dropped"] == 2 * 2 * 2 * ENVS
    assert counts["updates"] == 2 * 2 * 2 * ENVS // BATCH
    first = on_all(algorithm)
    assert first[0] == first[1] != start[0]

    algorithm.evaluate()
    assert algorithm.eval_env_runner_group.foreach_env_runner(seen)[-1] == first[0], "reads"
    assert algorithm.train()["shared_pool"]["updates"] == 2 * counts["updates"], "and delivers nothing"

    before = algorithm.shared_pool.counts["updates"]
    algorithm.env_runner_group.foreach_env_runner(end_second, local_env_runner=False)
    for _ in range(10):
        algorithm.train()
        if len(on_all(algorithm)) == 2:
            break
    sums = on_all(algorithm)
    assert len(sums) == 2
    assert sums[0] == sums[1]
    assert sums[0][1] == algorithm.shared_pool.counts["updates"] > before

    server = ray.get(algorithm.shared_pool.server.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(server, signal.SIGKILL)
    counts = algorithm.train()["shared_pool"]
    assert counts["updates"] > sums[0][1], "goes on where it was"

    kept = on_all(algorithm)
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.train()
    assert on_all(algorithm)[0] != kept[0]
    algorithm.restore_from_path(path)
    assert on_all(algorithm) == kept
    folder = algorithm.shared_pool.folder
    assert folder.is_dir()
    algorithm.stop()
    assert not folder.exists()

    again = PPO.from_checkpoint(path)
    assert on_all(again) == kept
    assert again.train()["shared_pool"]["updates"] > kept[0][1]
    again.stop()


def test_without_env_runners_the_algorithm_learns_and_evaluates_in_its_own_process() -> None:
    algorithm = learning(0).build_algo()
    assert algorithm.train()["shared_pool"]["updates"] > 0
    (after,) = on_all(algorithm)
    algorithm.evaluate()
    algorithm.callbacks[0].on_train_result(algorithm=algorithm, result={})
    assert on_all(algorithm) == [after], "evaluation changes nothing"
    algorithm.stop()


def test_what_cannot_share_a_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="no learn="):
        share_pool(config(0))
    with pytest.raises(ValueError, match="share_pool"):
        config(0, learn="maml").callbacks(SharedPoolCallback).build_algo()
    with pytest.raises(ValueError, match="no pool that learns"):
        learning(0).env_runners(gym_env_vectorize_mode=gym.VectorizeMode.SYNC).build_algo()

"""RLlib's PPO on `NetBuild-v0` with one pool for all env runners: `python -m agents.libraries.shared_pool`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from gym_reml.evaluation import MetaLearner, evaluate

from ..runs.command_line import check_options, run_command
from .rllib import policy_of

ENVS, ROLLOUT = 64, 20
STEPS_OF_A_ROLLOUT = ENVS * ROLLOUT


@dataclass(frozen=True)
class Config:
    """Trains RLlib's PPO, whose pool learns from the episodes of all env runners, and evaluates it."""

    runners: tuple[int, ...] = (0, 2)
    """numbers of env runners; 0 is the algorithm's own process, where the environment's own learner learns"""
    seeds: int = 1
    """runs for each number"""
    rollouts: int = 60
    """training iterations, of 1,280 steps each"""
    kill: bool = False
    """end the process of an env runner half-way"""
    tasks: int = 1000
    """held-out tasks"""


class Acting:
    """The trained policy of RLlib with SB3's `predict`, as `MetaLearner` takes it."""

    def __init__(self, algorithm: Any) -> None:
        self.act = policy_of(algorithm)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The most likely actions."""
        return self.act(observation), None


def config_of(runners: int, seed: int) -> Any:
    """PPO whose environments are spread over so many env runners; 0 for the algorithm's own process."""
    from ray.rllib.algorithms.ppo import PPOConfig

    return (
        PPOConfig()
        .environment("NetBuild-v0", env_config={"learn": "maml", "learn_kwargs": {"batch_size": 64, "seed": seed}})
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=ENVS // max(1, runners),
            rollout_fragment_length=ROLLOUT,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .training(
            train_batch_size_per_learner=STEPS_OF_A_ROLLOUT,
            minibatch_size=256,
            num_epochs=6,
            lr=1e-3,
            gamma=1.0,
            grad_clip=0.5,
            vf_clip_param=100.0,
            vf_share_layers=False,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=seed)
    )


def weight_sum(env_runner: Any) -> float | None:
    """The sum of all weights of an env runner's pool; None if it has no environment."""
    if env_runner.env is None:
        return None
    return float(sum(tensor.double().sum() for tensor in env_runner.env.unwrapped.pool.trainable().values()))


def end_process(env_runner: Any) -> None:
    """Ends the process of the second env runner, as a lost machine would."""
    if env_runner.worker_index == 2:
        os._exit(1)


def train(runners: int, seed: int, rollouts: int, kill: bool, tasks: int) -> None:
    """Trains, and prints the mean squared error on held-out tasks."""
    from gym_reml.rllib import share_pool

    config = config_of(runners, seed)
    algorithm = (share_pool(config) if runners else config).build_algo()
    start = time.monotonic()
    for rollout in range(rollouts):
        if kill and rollout == rollouts // 2:
            algorithm.env_runner_group.foreach_env_runner(end_process, local_env_runner=False)
        result = algorithm.train()
    seconds = time.monotonic() - start
    sums = [one for one in algorithm.env_runner_group.foreach_env_runner(weight_sum) if one is not None]
    if runners:
        pool, counts = algorithm.shared_pool.pool(), algorithm.shared_pool.counts
    else:
        learner = algorithm.env_runner.env.unwrapped.mdp.learner
        pool, counts = learner.pool, {name: getattr(learner, name) for name in ("updates", "used", "dropped")}
    learner = MetaLearner("ppo", Acting(algorithm), pool)
    found = evaluate(learner, "sinusoid", steps=(0, 1, 5), tasks=tasks)
    errors = ", ".join(f"{found.summary(step).mean:.4f} ± {found.summary(step).ci95:.4f}" for step in (1, 5))
    print(
        f"env runners {runners}, seed {seed}{', one killed' * kill}: {rollouts * STEPS_OF_A_ROLLOUT} steps in "
        f"{seconds:.0f} s, return {result['env_runners']['episode_return_mean']:.3f}, pool {counts}, "
        f"sums of weights {np.unique(np.round(sums, 6)).tolist()} on {len(sums)} runners, "
        f"error after 1 and 5 steps {errors}",
        flush=True,
    )
    algorithm.stop()


def main(config: Config) -> None:
    """Trains with every number of env runners and every seed.

    Raises:
        ImportError: RLlib is not installed.
    """
    check_options(config, seeds=1, rollouts=1, tasks=2)
    torch.set_num_threads(1)
    try:
        import ray
        import ray.rllib
    except ImportError as error:
        raise ImportError('needs RLlib: pip install "ray[rllib]"') from error
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    for seed in range(config.seeds):
        for runners in config.runners:
            train(runners, seed, config.rollouts, config.kill and runners > 1, config.tasks)
    ray.shutdown()


if __name__ == "__main__":
    run_command(main, Config)

"""RLlib: PPO with hybrid and box actions, DQN and SAC, over the native vector environment."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("ray[rllib]==2.60.0", "gymnasium==1.2.2")

ROWS = 32


def configuration(algorithm: str, env_id: str, seed: int) -> Any:
    """A configuration of RLlib's: `ROWS` rows in this process, computed together."""
    import gymnasium as gym
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.algorithms.sac import SACConfig

    configs: dict[str, Any] = {
        "PPO": lambda: PPOConfig().training(train_batch_size=1_600, minibatch_size=320, num_epochs=6, lr=1e-3),
        "DQN": lambda: DQNConfig().training(
            train_batch_size=128, lr=1e-3, num_steps_sampled_before_learning_starts=500, training_intensity=4
        ),
        "SAC": lambda: SACConfig().training(
            train_batch_size=128, num_steps_sampled_before_learning_starts=500, training_intensity=4
        ),
    }
    config = configs[algorithm]().environment(f"gym_reml:{env_id}").debugging(seed=seed)
    return config.env_runners(
        num_env_runners=0,
        num_envs_per_env_runner=ROWS,
        # Without this, RLlib makes single environments and steps them one by one.
        gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
    )

"""Tianshou: DQN, with the vector environment of `gym_reml.tianshou`."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("tianshou==2.0.1", "filelock<4")

ENV_ID = "NetBuildDiscrete-v0"
ROWS = 64


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the discrete id."""
    import numpy as np
    import torch
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net

    from gym_reml.tianshou import make_vec_env

    np.random.seed(seed)  # noqa: NPY002 - Tianshou explores with it
    torch.manual_seed(seed)
    envs: Any = make_vec_env(ENV_ID, ROWS)
    envs.seed(seed)
    action_space = envs.action_space[0]
    network = Net(
        state_shape=envs.observation_space[0].shape, action_shape=(int(action_space.n),), hidden_sizes=[128, 128]
    )
    policy = DiscreteQLearningPolicy(model=network, action_space=action_space, eps_training=0.2)
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=0.99, target_update_freq=100)
    collector = Collector(algorithm, envs, VectorReplayBuffer(20_000, ROWS), exploration_noise=True)

    @torch.no_grad()
    def act(observation: Any) -> np.ndarray:
        values, _ = network(observation)
        return values.argmax(dim=-1).numpy()

    first = held_out_return(ENV_ID, act)
    steps = max(2_000, round(20_000 * budget))
    began = time.process_time()
    collector.reset()
    collector.collect(n_step=ROWS * 10)
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=steps,
            collection_step_num_env_steps=ROWS * 5,
            update_step_num_gradient_steps_per_sample=0.1,
            batch_size=256,
            show_progress=False,
            verbose=False,
        )
    )
    seconds = time.process_time() - began
    return [
        Reached(
            library="tianshou",
            version=version_of("tianshou"),
            algorithm="DQN",
            id=ENV_ID,
            face="native vector",
            steps=collector.collect_step,
            seconds=seconds,
            random_return=held_out_return(ENV_ID),
            trained_return=held_out_return(ENV_ID, act),
            first_return=first,
        )
    ]


if __name__ == "__main__":
    run(main)

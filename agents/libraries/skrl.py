"""skrl: DQN on the native vector environment."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("skrl==2.1.1",)

ROWS = 64

CASES = (("NetBuildDiscrete-v0", 300), ("BanditTrial-v0", 1_000))
"""The ids that it trains on, and for how many steps of all rows."""


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the discrete id, and on trials of bandits."""
    import gymnasium as gym
    import numpy as np
    import torch
    from skrl.agents.torch.dqn import DQN
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import DeterministicMixin, Model
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed

    import gym_reml  # noqa: F401 - registers the ids

    class QNetwork(DeterministicMixin, Model):
        """Values of the actions."""

        def __init__(self, observation_space: Any, action_space: Any, device: str) -> None:
            Model.__init__(self, observation_space=observation_space, action_space=action_space, device=device)
            DeterministicMixin.__init__(self)
            self.net = torch.nn.Sequential(
                *(torch.nn.Linear(self.num_observations, 128), torch.nn.ReLU()),
                *(torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, self.num_actions)),
            )

        def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
            return self.net(inputs["observations"]), {}

    rows = []
    for env_id, most in CASES:
        set_seed(seed)
        env = wrap_env(gym.make_vec(env_id, num_envs=ROWS, autoreset_mode="SameStep"), wrapper="gymnasium")
        device = "cpu"
        models = {name: QNetwork(env.observation_space, env.action_space, device) for name in NETWORKS}
        steps = max(100, round(most * budget))
        agent = DQN(
            models=models,
            memory=RandomMemory(memory_size=500, num_envs=ROWS, device=device),
            observation_space=env.observation_space,
            action_space=env.action_space,
            device=device,
            cfg={
                **{"gradient_steps": 8, "batch_size": 256, "discount_factor": 1.0, "learning_rate": 1e-3},
                **{"polyak": 1.0, "target_update_interval": 100, "learning_starts": 20},
                "exploration_scheduler": lambda timestep, timesteps: max(0.05, 1.0 - 2.0 * timestep / timesteps),
                "experiment": {"write_interval": 0, "checkpoint_interval": 0},
            },
        )

        @torch.no_grad()
        def act(observation: Any, agent: Any = agent) -> np.ndarray:
            values, _ = agent.q_network.act({"observations": torch.as_tensor(observation)}, role="q_network")
            return values.argmax(dim=-1).numpy()

        first = held_out_return(env_id, act)
        trainer = SequentialTrainer(
            env=env, agents=agent, cfg={"timesteps": steps, "headless": True, "disable_progressbar": True}
        )
        began = time.process_time()
        trainer.train()
        seconds = time.process_time() - began
        rows.append(
            Reached(
                library="skrl",
                version=version_of("skrl"),
                algorithm="DQN",
                id=env_id,
                face="native vector",
                steps=steps * ROWS,
                seconds=seconds,
                random_return=held_out_return(env_id),
                trained_return=held_out_return(env_id, act),
                first_return=first,
            )
        )
    return rows


NETWORKS = ("q_network", "target_q_network")

if __name__ == "__main__":
    run(main)

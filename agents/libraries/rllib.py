"""RLlib: PPO with hybrid and box actions, DQN and SAC, over the native vector environment."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("ray[rllib]==2.60.0", "gymnasium==1.2.2")

ROWS = 32

CASES = (
    ("PPO", "NetBuildHybrid-v0", 16_000),
    ("PPO", "NetBuild-v0", 16_000),
    ("DQN", "NetBuildDiscrete-v0", 3_000),
    ("SAC", "NetBuild-v0", 2_000),
)
"""Algorithms, the ids that they train on, and for how many steps."""


def configuration(algorithm: str, env_id: str, seed: int) -> Any:
    """A configuration of RLlib's: `ROWS` rows in this process, computed together."""
    from ray import tune
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.algorithms.sac import SACConfig

    off_policy: dict[str, Any] = {
        "train_batch_size": 128,
        "num_steps_sampled_before_learning_starts": 500,
        "training_intensity": 32,
    }
    configs: dict[str, Any] = {
        "PPO": lambda: PPOConfig().training(train_batch_size=1_600, minibatch_size=320, num_epochs=6, lr=1e-3),
        "DQN": lambda: DQNConfig().training(lr=1e-3, epsilon=[(0, 1.0), (2_000, 0.05)], **off_policy),
        "SAC": lambda: SACConfig().training(actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, **off_policy),
    }
    env = f"gym_reml:{env_id}"
    if algorithm == "SAC":
        env = "plain box"
        tune.register_env(env, lambda settings: plain_box(env_id, settings["num_envs"]))
    return (
        configs[algorithm]()
        .environment(env)
        .debugging(seed=seed)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=ROWS,
            # Without this, RLlib makes single environments and steps them one by one.
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
    )


def plain_box(env_id: str, rows: int) -> Any:
    """The native vector environment with a `Box` that is no subclass: RLlib's SAC goes by the type of the space."""
    envs = gym.make_vec(f"gym_reml:{env_id}", rows, vectorization_mode="vector_entry_point")
    plain = gym.spaces.Box(-1.0, 1.0, envs.single_action_space.shape)
    return gym.wrappers.vector.TransformAction(envs, lambda actions: actions, single_action_space=plain)


def policy_of(algorithm: Any) -> Any:
    """The policy that an algorithm has now: maps observations (n, ...) to actions, without exploration."""
    import torch
    import tree

    module = algorithm.get_module()

    @torch.no_grad()
    def act(observation: Any) -> Any:
        outputs = module.forward_inference({"obs": torch.as_tensor(observation)})
        if "actions" not in outputs:  # DQN's module picks, the others' say how actions are distributed
            distribution = module.get_inference_action_dist_cls().from_logits(outputs["action_dist_inputs"])
            outputs["actions"] = distribution.to_deterministic().sample()
        return tree.map_structure(lambda part: part.numpy(), outputs["actions"])

    return act


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains PPO, DQN and SAC."""
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    rows = []
    for name, env_id, steps in CASES:
        algorithm = configuration(name, env_id, seed).build_algo()
        first = held_out_return(env_id, policy_of(algorithm))
        sampled, start = 0, time.process_time()
        while sampled < steps * budget:
            sampled = algorithm.train()["num_env_steps_sampled_lifetime"]
        rows.append(
            Reached(
                library="ray[rllib]",
                version=version_of("ray"),
                algorithm=name,
                id=env_id,
                face="native vector",
                steps=int(sampled),
                seconds=time.process_time() - start,
                random_return=held_out_return(env_id),
                trained_return=held_out_return(env_id, policy_of(algorithm)),
                first_return=first,
            )
        )
        algorithm.stop()
    ray.shutdown()
    return rows


if __name__ == "__main__":
    run(main)

"""Stable-Baselines3 and sb3-contrib: PPO with a hybrid policy, DQN and MaskablePPO."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("stable-baselines3==2.9.2", "sb3-contrib==2.9.2")

ROWS = 64


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the Box id and on the discrete id."""
    from sb3_contrib import MaskablePPO
    from stable_baselines3 import DQN, PPO

    from gym_reml.sb3 import HybridPolicy, make_vec_env

    on_policy: dict[str, Any] = {"n_steps": 20, "batch_size": 320, "n_epochs": 5, "learning_rate": 1e-3, "gamma": 1.0}
    agents: list[tuple[str, Any, Any, str, int, dict[str, Any]]] = [
        ("stable-baselines3", PPO, HybridPolicy, "NetBuild-v0", 40_000, on_policy),
        (
            *("stable-baselines3", DQN, "MlpPolicy", "NetBuildDiscrete-v0", 20_000),
            {"learning_starts": 2_000, "learning_rate": 1e-3, "gradient_steps": 16, "target_update_interval": 1_000},
        ),
        ("sb3-contrib", MaskablePPO, "MlpPolicy", "NetBuildDiscrete-v0", 40_000, on_policy),
    ]
    rows = []
    for library, algorithm, policy, env_id, steps, arguments in agents:
        env = make_vec_env(env_id, ROWS, seed=seed)
        model = algorithm(policy, env, seed=seed, device="cpu", **arguments)

        def act(observation: Any, model: Any = model) -> Any:
            return model.predict(observation, deterministic=True)[0]

        first = held_out_return(env_id, act)
        began = time.process_time()
        model.learn(max(1, round(steps * budget)))
        seconds = time.process_time() - began
        rows.append(
            Reached(
                library=library,
                version=version_of(library),
                algorithm=f"{algorithm.__name__}, {policy if isinstance(policy, str) else policy.__name__}",
                id=env_id,
                face="native vector",
                steps=model.num_timesteps,
                seconds=seconds,
                random_return=held_out_return(env_id),
                trained_return=held_out_return(env_id, act),
                first_return=first,
            )
        )
    return rows


if __name__ == "__main__":
    run(main)

"""Stable-Baselines3 and sb3-contrib: PPO with a hybrid policy, DQN, MaskablePPO, and a recurrent agent in trials."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("stable-baselines3==2.9.2", "sb3-contrib==2.9.2")

ROWS = 64


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the Box id, on the discrete id, and in navigation trials."""
    import numpy as np
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from stable_baselines3 import DQN, PPO

    from gym_reml.sb3 import HybridPolicy, make_vec_env

    on_policy: dict[str, Any] = {"n_steps": 20, "batch_size": 320, "n_epochs": 5, "learning_rate": 1e-3}
    agents: list[tuple[str, Any, Any, str, int, dict[str, Any]]] = [
        ("stable-baselines3", PPO, HybridPolicy, "NetBuild-v0", 40_000, on_policy | {"gamma": 1.0}),
        (
            *("stable-baselines3", DQN, "MlpPolicy", "NetBuildDiscrete-v0", 20_000),
            {"learning_starts": 2_000, "learning_rate": 1e-3, "gradient_steps": 16, "target_update_interval": 1_000},
        ),
        ("sb3-contrib", MaskablePPO, "MlpPolicy", "NetBuildDiscrete-v0", 40_000, on_policy | {"gamma": 1.0}),
        ("sb3-contrib", RecurrentPPO, "MlpLstmPolicy", "NavigationTrial-v0", 15_000, on_policy),
    ]
    rows = []
    for library, algorithm, policy, env_id, steps, arguments in agents:
        env = make_vec_env(env_id, ROWS, seed=seed)
        model = algorithm(policy, env, seed=seed, device="cpu", **arguments)

        def returns(model: Any = model, env_id: str = env_id) -> float:
            state, start = None, np.True_

            def act(observation: Any) -> Any:
                nonlocal state, start
                starts = np.full(len(observation), start)
                action, state = model.predict(observation, state, episode_start=starts, deterministic=True)
                start = np.False_
                return action

            return held_out_return(env_id, act)

        first = returns()
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
                trained_return=returns(),
                first_return=first,
            )
        )
    return rows


if __name__ == "__main__":
    run(main)

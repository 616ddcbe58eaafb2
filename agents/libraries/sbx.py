"""SBX, Stable-Baselines3 in Jax: PPO, with the same vector environment as Stable-Baselines3."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("sbx-rl==0.28.0",)

ENV_ID = "NetBuildMultiDiscrete-v0"
ROWS = 64


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the MultiDiscrete id."""
    from sbx import PPO

    from gym_reml.sb3 import make_vec_env

    env = make_vec_env(ENV_ID, ROWS, seed=seed)
    model = PPO(
        *("MlpPolicy", env),
        **{"n_steps": 20, "batch_size": 320, "n_epochs": 5, "learning_rate": 1e-3, "gamma": 1.0, "seed": seed},
    )

    def act(observation: Any) -> Any:
        return model.predict(observation, deterministic=True)[0]

    first = held_out_return(ENV_ID, act)
    began = time.process_time()
    model.learn(max(1, round(40_000 * budget)))
    seconds = time.process_time() - began
    return [
        Reached(
            library="sbx-rl",
            version=version_of("sbx-rl"),
            algorithm="PPO",
            id=ENV_ID,
            face="native vector",
            steps=model.num_timesteps,
            seconds=seconds,
            random_return=held_out_return(ENV_ID),
            trained_return=held_out_return(ENV_ID, act),
            first_return=first,
            note="seconds include Jax's compilation",
        )
    ]


if __name__ == "__main__":
    run(main)

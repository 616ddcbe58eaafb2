"""SBX, Stable-Baselines3 in Jax: PPO, with the same vector environment as Stable-Baselines3."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, episodes_of, held_out_return, note_of, run, version_of

REQUIREMENTS = ("sbx-rl==0.28.0",)

ROWS = 64

CASES = (("NetBuildMultiDiscrete-v0", 40_000), ("NetLoss-v0", 5_120))
"""The ids that it trains on, MultiDiscrete and Box, and for how many steps."""


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the MultiDiscrete id, and on a sibling, which decides losses."""
    from sbx import PPO

    from gym_reml.sb3 import make_vec_env

    rows = []
    for env_id, steps in CASES:
        model = PPO(
            *("MlpPolicy", make_vec_env(env_id, ROWS, seed=seed)),
            **{"n_steps": 20, "batch_size": 320, "n_epochs": 5, "learning_rate": 1e-3, "gamma": 1.0, "seed": seed},
        )

        def act(observation: Any, model: Any = model) -> Any:
            return model.predict(observation, deterministic=True)[0]

        episodes = episodes_of(env_id)
        first = held_out_return(env_id, act, episodes=episodes)
        began = time.process_time()
        model.learn(max(1, round(steps * budget)))
        seconds = time.process_time() - began
        rows.append(
            Reached(
                library="sbx-rl",
                version=version_of("sbx-rl"),
                algorithm="PPO",
                id=env_id,
                face="native vector",
                steps=model.num_timesteps,
                seconds=seconds,
                random_return=held_out_return(env_id, episodes=episodes),
                trained_return=held_out_return(env_id, act, episodes=episodes),
                first_return=first,
                note="; ".join(filter(None, ["seconds include Jax's compilation", note_of(episodes)])),
            )
        )
    return rows


if __name__ == "__main__":
    run(main)

"""Minari and d3rlpy: record a data set of episodes, and train an agent from it alone."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import gymnasium as gym

import gym_reml  # noqa: F401 - registers the ids

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("minari[hdf5,create]==0.5.4", "d3rlpy==2.8.1", "gymnasium==1.0.0", "pillow==11.3.0")
"""d3rlpy asks for exactly this Gymnasium; Minari needs Pillow and does not say so."""

DATASET = "gym-reml/netbuild-discrete/random-v0"


def record(env_id: str, episodes: int, seed: int, name: str = DATASET, **arguments: Any) -> Any:
    """Records episodes of random actions as a `minari.MinariDataset`, their infos included."""
    import minari

    env = minari.DataCollector(gym.make(env_id, **arguments), record_infos=True)
    env.action_space.seed(seed)
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        done = False
        while not done:
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    # Minari would otherwise play 100 more episodes to find the random policy's return, which this data set is.
    score = env.unwrapped.spec and 0.0
    dataset = env.create_dataset(name, algorithm_name="random", ref_min_score=score)
    env.close()
    return dataset

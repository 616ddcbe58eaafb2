"""Minari and d3rlpy: record a data set of episodes, and train an agent from it alone."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import gymnasium as gym
import numpy as np

import gym_reml  # noqa: F401 - registers the ids

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("minari[create]==0.5.4", "h5py==3.16.0", "pillow==11.3.0", "d3rlpy==2.8.1", "gymnasium==1.0.0")
"""Minari needs Pillow and does not ask for it; d3rlpy asks for exactly this Gymnasium."""

ID, HORIZON = "NetBuildDiscrete-v0", 5
DATASET = "gym-reml/netbuild-discrete-random-v0"

EPISODES = 1_000
UPDATES = 2_000


def record(episodes: int, seed: int) -> Any:
    """Records episodes of random actions, with their infos, as a `minari.MinariDataset`."""
    import minari

    # Episodes end after their horizon; d3rlpy asks for an environment with a limit besides.
    env = minari.DataCollector(gym.make(ID, max_episode_steps=HORIZON + 1), record_infos=True)
    env.action_space.seed(seed)
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        terminated = False
        while not terminated:
            *_, terminated, _, _ = env.step(env.action_space.sample())
    dataset = env.create_dataset(DATASET, algorithm_name="random", num_episodes_average_score=1)
    env.close()
    return dataset


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Records a data set and trains d3rlpy's discrete CQL from it."""
    import d3rlpy

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        episodes, start = int(EPISODES * budget), time.process_time()
        recorded = np.mean([episode.rewards.sum() for episode in record(episodes, seed)])
        data, _ = d3rlpy.datasets.get_minari(DATASET)
        d3rlpy.seed(seed)
        agent = d3rlpy.algos.DiscreteCQLConfig(
            learning_rate=1e-3, batch_size=128, gamma=0.95, target_update_interval=200, alpha=0.1
        ).create(device="cpu:0")
        agent.fit(
            data,
            n_steps=int(UPDATES * budget),
            n_steps_per_epoch=int(UPDATES * budget),
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
            show_progress=False,
        )
        rows.append(
            Reached(
                library="d3rlpy",
                version=version_of("d3rlpy"),
                algorithm="DiscreteCQL",
                id=ID,
                face="single",
                steps=episodes * HORIZON,
                seconds=time.process_time() - start,
                random_return=held_out_return(ID),
                trained_return=held_out_return(ID, agent.predict),
                first_return=float(recorded),
                note=f"from a data set of random episodes, recorded by Minari {version_of('minari')}",
            )
        )
    return rows


if __name__ == "__main__":
    run(main)

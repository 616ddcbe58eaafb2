"""An animation of a learner at work: `python -m agents.animate RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import gym_reml

from .pages.animation import write_gif
from .reml.choice import LearnerChoice
from .runs.command_line import check_options, default_is, run_command

FRAME_MILLISECONDS = 900
LAST_FRAME_MILLISECONDS = 2200


@dataclass(frozen=True)
class Config(LearnerChoice):
    """Writes an animated GIF of some episodes of a learner on held-out tasks."""

    out: Annotated[Path | None, default_is("RUN/episode.gif")] = None
    """file to write"""
    episodes: int = 3
    """how many episodes"""
    seed: int = 0
    """of the first task"""


def main(config: Config) -> None:
    """Runs the episodes and writes the animation."""
    torch.set_num_threads(1)
    check_options(config, episodes=1, seed=0)
    learner, family = config.learner_and_family()
    family = family.replace(split="test")
    arguments = dict(learner.arguments)
    action = arguments.pop("action", "box")
    env_id = next(env_id for env_id, encoding in gym_reml.ENVIRONMENTS.items() if encoding == action)
    env = gym.make(env_id, family=family, pool=learner.pool, render_mode="rgb_array", **arguments)

    def masks() -> NDArray[np.bool_]:
        return env.get_wrapper_attr("action_masks")()[None]

    frames, durations = [], []
    for episode in range(config.episodes):
        observation, _ = env.reset(seed=config.seed + episode)
        frames.append(env.render())
        durations.append(FRAME_MILLISECONDS)
        state, ended = None, False
        while not ended:
            actions, state = learner.act(observation[None], state, np.array([state is None]), masks)
            observation, _, ended, _, _ = env.step(actions[0])
            frames.append(env.render())
            durations.append(LAST_FRAME_MILLISECONDS if ended else FRAME_MILLISECONDS)
    out = config.out or config.run / "episode.gif"
    write_gif(out, frames, durations)
    print(f"wrote {len(frames)} frames to {out}")


if __name__ == "__main__":
    run_command(main, Config)

"""What a program reached: one row of the table of libraries, and the held-out episodes that it is measured on."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np

import gym_reml
from gym_reml.envs.common.rows import make_rows

EPISODES, LONG_EPISODES = 400, 64
LONG = ("NetTune", "NetLoss", "NetRule", "NetAugment")
"""Beginnings of their ids."""
SEED = 10_000
"""Of the held-out episodes: the same tasks for every library."""

Face = Literal["single", "native vector"]


@dataclass(frozen=True)
class Reached:
    """One training run with a library.

    Attributes:
        library: name of the library's package, as pip knows it.
        version: of the library.
        algorithm: in the library's words.
        id: of the environment.
        face: "single", where the library steps environments one by one, or "native vector", where it steps all in one
            batch.
        steps: of single environments, in training.
        seconds: of training: processor time, where it is one process.
        random_return: mean return of random actions over the held-out episodes.
        trained_return: mean return of the trained policy over the same episodes, without exploration.
        first_return: that of the policy before training, or of the data that it learned from; None if not measured.
        note: what a reader must know to compare the row.
    """

    library: str
    version: str
    algorithm: str
    id: str
    face: Face
    steps: int
    seconds: float
    random_return: float
    trained_return: float
    first_return: float | None = None
    note: str = ""


def held_out_return(
    env_id: str, act: Callable[[Any], Any] | None = None, *, episodes: int = EPISODES, **arguments: Any
) -> float:
    """Mean return of a policy over held-out episodes, whose tasks are drawn from the test split.

    Args:
        env_id: an id of `gym_reml.REGISTRATIONS`.
        act: maps observations of n rows to their actions, in the form of the vector environment's action space; None
            for random actions.
        episodes: their number.
        **arguments: of the environment, as it was trained in.
    """
    if gym_reml.REGISTRATIONS[env_id].process == "trial":
        arguments |= {"split": "test"}
    else:
        arguments["family_kwargs"] = {**arguments.get("family_kwargs", {}), "split": "test"}
    # As `gym.make_vec`, but Gymnasium 0.29, which some libraries need, has other arguments.
    env = make_rows(env_id, episodes, instead="", arguments=arguments)
    env.action_space.seed(SEED)
    observation, _ = env.reset(seed=SEED)
    returns, running = np.zeros(episodes), np.ones(episodes, dtype=np.bool_)
    while running.any():
        actions = env.action_space.sample() if act is None else act(observation)
        observation, reward, terminated, truncated, _ = env.step(actions)
        returns += np.where(running, reward, 0.0)
        running &= ~(terminated | truncated)
    env.close()
    return float(returns.mean())


def episodes_of(env_id: str) -> int:
    """The number of held-out episodes: fewer where an episode trains a network by hundreds of minibatches."""
    return LONG_EPISODES if env_id.startswith(LONG) else EPISODES


def note_of(episodes: int) -> str:
    """What a row says of their number."""
    return "" if episodes == EPISODES else f"{episodes} held-out episodes"


def version_of(library: str) -> str:
    """The installed version of a package."""
    return metadata.version(library)


def seconds_of_children() -> float:
    """Processor time of the processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def run(main: Callable[[int, float], list[Reached]]) -> None:
    """Runs a library's program from the command line and prints each row as one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=1.0, help="factor of the number of steps (default: 1)")
    options = parser.parse_args()
    for row in main(options.seed, options.budget):
        print(json.dumps(asdict(row)), flush=True)

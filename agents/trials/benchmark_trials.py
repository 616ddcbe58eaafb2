"""Steps per second of trials, against Gymnasium's `SyncVectorEnv` of the same environments.

python -m agents.trials.benchmark_trials
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import gym_reml

from ..runs.command_line import run_command
from ..runs.timing import rate

ACTIONS = 64  # drawn beforehand, and used in turn


@dataclass(frozen=True)
class Config:
    """What to measure, and for how long."""

    seconds: float = 1.0
    """Of each measurement."""
    rounds: int = 5
    """Everything is measured this often, in turn; the median counts."""
    rows: int = 256
    """Environments side by side."""


def stepper(envs: Any) -> Callable[[], int]:
    """One step of all of them; it returns the environment steps taken."""
    envs.action_space.seed(0)
    actions = itertools.cycle([envs.action_space.sample() for _ in range(ACTIONS)])
    envs.reset(seed=0)

    def step() -> int:
        envs.step(next(actions))
        return int(envs.num_envs)

    return step


def measure(env_id: str, config: Config) -> tuple[float, float, float]:
    """Steps per second of the native vector environment and of the other, and their ratio."""
    mode = AutoresetMode.SAME_STEP
    works = [
        stepper(gym.make_vec(env_id, config.rows, autoreset_mode=mode)),
        stepper(SyncVectorEnv([lambda: gym.make(env_id) for _ in range(config.rows)], autoreset_mode=mode)),
    ]
    rates = np.array([[rate(work, config.seconds) for work in works] for _ in range(config.rounds)])
    native, other = np.median(rates, axis=0)
    return float(native), float(other), float(np.median(rates[:, 0] / rates[:, 1]))


def main(config: Config) -> None:
    """Prints a Markdown table."""
    print(f"| n = {config.rows} | native, steps/s | SyncVectorEnv, steps/s | ratio |\n|---|---:|---:|---:|")
    for env_id in gym_reml.TRIALS:
        native, other, ratio = measure(env_id, config)
        print(f"| `{env_id}` | {native:,.0f} | {other:,.0f} | {ratio:.0f} |")


if __name__ == "__main__":
    run_command(main, Config)

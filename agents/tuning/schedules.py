"""Schedules of the step size: constant, cosine and step decay, tuned on validation tasks, or for each task."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.files import write_text

from .setting import Played, RunSetting, TuningSetting, play

TUNING_TASKS = 150
"""Validation tasks that schedules are tuned on."""

RATES_A_DECADE = 2


def constant(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 at all times, from 0 at the start to below 1."""
    return np.ones_like(time)


def cosine(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1 down to 0 by half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return (1.0 + np.cos(np.pi * time)) / 2.0


def step_decay(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 in the first half, a tenth in the third quarter, a hundredth in the last (He et al. 2016 decay by tenths)."""
    return np.where(time < 0.5, 1.0, np.where(time < 0.75, 0.1, 0.01))


SHAPES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "constant": constant,
    "cosine": cosine,
    "step_decay": step_decay,
}
"""Factors of the first step size over the time of a run, by name."""


@dataclass(frozen=True)
class Schedule:
    """A policy that knows the time only.

    Attributes:
        setting: the runs it is for.
        shape: a name of `SHAPES`.
        rate: the first step size.
    """

    setting: TuningSetting
    shape: str
    rate: float

    @property
    def notes(self) -> dict[str, float]:
        """What was tuned."""
        return {"rate": self.rate}

    def predict(
        self, observation: NDArray[np.float32], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.float32], Any]:
        """Actions (n, 1) for observations (n, size)."""
        tuning = example(self.setting)
        time = observation[:, tuning.parts["progress"].start].astype(np.float64)
        places = tuning.dials.place(self.rate * SHAPES[self.shape](time))
        return places[:, None].astype(np.float32), state


_examples: dict[RunSetting, Any] = {}


def example(setting: RunSetting) -> Any:
    """The process of such runs, for what all of them share."""
    if setting not in _examples:
        env: Any = gym.make(setting.env_id, **setting.arguments("train")).unwrapped
        _examples[setting] = env.tuning
    return _examples[setting]


def rates(setting: TuningSetting) -> NDArray[np.float64]:
    """The step sizes that are tried: the range of the dial on a logarithmic grid."""
    low, high = np.log10(example(setting).dials.step_range)
    return np.logspace(low, high, round(RATES_A_DECADE * (high - low)) + 1)


def try_all(setting: TuningSetting, shape: str, tasks: int, split: str) -> list[Played]:
    """Runs of every rate on the same tasks."""
    return [play(Schedule(setting, shape, rate), setting, tasks, split) for rate in rates(setting)]


def best_fixed(setting: TuningSetting, shape: str, folder: Path) -> Schedule:
    """The rate that does best on validation tasks, by the validation metric; all that were tried are written down."""
    found = [float(played.validation.mean()) for played in try_all(setting, shape, TUNING_TASKS, "validation")]
    tried = {f"{rate:.3g}": mean for rate, mean in zip(rates(setting), found, strict=True)}
    write_text(folder / "tried.json", json.dumps(tried))
    return Schedule(setting, shape, float(rates(setting)[int(np.argmax(found))]))


def tuned_per_task(setting: TuningSetting, shape: str, tasks: int) -> Played:
    """For each held-out task the rate that does best on its own validation part: as many runs as there are rates."""
    every = try_all(setting, shape, tasks, "test")
    best = np.argmax([played.validation for played in every], axis=0)
    each = np.arange(tasks)
    return Played(
        np.stack([played.validation for played in every])[best, each],
        np.stack([played.test for played in every])[best, each],
        every[0].task,
    )

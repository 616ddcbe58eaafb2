"""Losses with fixed parameters: cross-entropy, the best setting for all tasks, and the best for each kind of task."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.files import write_text

from .schedules import TUNING_TASKS, example
from .setting import LossSetting, Played, play

GRID: dict[str, tuple[float, ...]] = {
    "logit_adjustment": (0.0, 0.5, 1.0, 1.5),
    "focal": (0.0, 1.0),
    "smoothing": (0.0, 0.2),
    "trust": (0.0, 0.25, 0.5),
    "classification": (1.0, 0.25),
    "triplet": (0.0, 1.0),
    "cosine_triplet": (0.0, 1.0),
}
"""The values that are tried of each parameter that is decided, in every combination; first that of cross-entropy."""

KIND = ("imbalance", "label_noise")
"""Tasks with the same of these numbers are of one kind."""


@dataclass(frozen=True)
class FixedLoss:
    """A policy that moves the parameters to these values as fast as it may, and leaves them there.

    Attributes:
        setting: the runs it is for.
        values: of the parameters, in the order of the decision.
    """

    setting: LossSetting
    values: tuple[float, ...]

    @property
    def notes(self) -> dict[str, float]:
        """What was tuned."""
        return dict(zip(self.setting.losses, self.values, strict=True))

    def predict(
        self, observation: NDArray[np.float32], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.float32], Any]:
        """Actions (n, parameters) for observations (n, size)."""
        process = example(self.setting)
        low, high, move = (
            np.array([getattr(loss, name) for loss in process.losses]) for name in ("low", "high", "move")
        )
        now = low + (observation[:, process.parts["parameters"]] + 1.0) / 2.0 * (high - low)
        return np.clip((np.array(self.values) - now) / move, -1.0, 1.0).astype(np.float32), state


def settings(setting: LossSetting) -> list[FixedLoss]:
    """Every combination of `GRID` for the losses of the setting; the first is cross-entropy."""
    return [FixedLoss(setting, values) for values in itertools.product(*(GRID[name] for name in setting.losses))]


def cross_entropy(setting: LossSetting) -> FixedLoss:
    """Does nothing."""
    return settings(setting)[0]


def _try_all(setting: LossSetting) -> list[Played]:
    return [play(fixed, setting, TUNING_TASKS, "validation") for fixed in settings(setting)]


def best_loss(setting: LossSetting, folder: Path) -> FixedLoss:
    """The setting that does best on validation tasks, by the validation metric; all tried are written down."""
    found = [float(played.validation.mean()) for played in _try_all(setting)]
    tried = {", ".join(map(str, fixed.values)): mean for fixed, mean in zip(settings(setting), found, strict=True)}
    write_text(folder / "tried.json", json.dumps(tried))
    return settings(setting)[int(np.argmax(found))]


def best_per_kind(setting: LossSetting, tasks: int) -> Played:
    """On each held-out task the setting that does best on validation tasks of its kind."""
    every = _try_all(setting)
    kinds = _kinds(every[0])
    chosen = {}
    for kind in set(kinds):
        of_kind = [one == kind for one in kinds]
        chosen[kind] = int(np.argmax([played.validation[of_kind].mean() for played in every]))
    runs = {number: play(settings(setting)[number], setting, tasks) for number in sorted(set(chosen.values()))}
    some = next(iter(runs.values()))
    # A kind that no validation task was of has cross-entropy.
    runs.setdefault(0, play(cross_entropy(setting), setting, tasks))
    own = [runs[chosen.get(kind, 0)] for kind in _kinds(some)]
    return Played(
        np.array([played.validation[place] for place, played in enumerate(own)]),
        np.array([played.test[place] for place, played in enumerate(own)]),
        some.task,
    )


def _kinds(played: Played) -> list[tuple[float, ...]]:
    return list(zip(*(played.task[name].tolist() for name in KIND), strict=True))

"""What agents and schedules are compared on: runs of training, and the tasks they are drawn from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.evaluation import Policy
from gym_reml.streams import SPLITS

from ..runs.run import TASKS_OF_A_RUN


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """Arguments of an environment that trains networks; see there.

    Attributes:
        env_id: of the environment.
        unnamed: fields that its folder does not name where they have their defaults.
        family: of data sets.
        horizon: steps of an episode.
    """

    env_id: ClassVar[str]
    unnamed: ClassVar[tuple[str, ...]] = ()

    family: str = "clusters"
    horizon: int = 20

    def arguments(self, split: str) -> dict[str, Any]:
        """Of the environment."""
        return asdict(self) | {"family_kwargs": {"split": split}}

    @property
    def measured(self) -> str:
        """The metric of its runs."""
        return "accuracy"

    @property
    def folder(self) -> str:
        """A name for folders."""
        usual = {(name, getattr(type(self), name)) for name in self.unnamed}
        own = [(name, value) for name, value in asdict(self).items() if not isinstance(value, tuple)]
        return "-".join(str(value) for name, value in own if (name, value) not in usual)


@dataclass(frozen=True, kw_only=True)
class TuningSetting(RunSetting):
    """Arguments of `NetTune-v0`; see there."""

    env_id: ClassVar[str] = "NetTune-v0"

    optimizer: str = "momentum"
    updates: int = 10

    def __str__(self) -> str:
        return f"{self.family}, {self.optimizer}, {self.horizon} x {self.updates} minibatches"


@dataclass(frozen=True, kw_only=True)
class LossSetting(TuningSetting):
    """Arguments of `NetLoss-v0`; see there."""

    env_id: ClassVar[str] = "NetLoss-v0"
    unnamed: ClassVar[tuple[str, ...]] = ("metric",)

    updates: int = 15
    losses: tuple[str, ...] = ("logit_adjustment", "focal", "smoothing", "trust")
    metric: str = "balanced_accuracy"

    @property
    def measured(self) -> str:
        return self.metric


@dataclass(frozen=True, kw_only=True)
class RuleSetting(RunSetting):
    """Arguments of `NetRule-v0`; see there."""

    env_id: ClassVar[str] = "NetRule-v0"

    horizon: int = 3
    updates: int = 100
    tasks: int = 1
    rates: tuple[float, ...] = (0.01, 0.1, 1.0)

    def __str__(self) -> str:
        return f"{self.family}, rules of {self.horizon} groups, {self.updates} minibatches"


@dataclass(frozen=True, kw_only=True)
class AugmentSetting(TuningSetting):
    """Arguments of `NetAugmentMultiDiscrete-v0`, whose decisions are AutoAugment's; see there."""

    env_id: ClassVar[str] = "NetAugmentMultiDiscrete-v0"
    unnamed: ClassVar[tuple[str, ...]] = ("step_size",)

    family: str = "glyphs"
    horizon: int = 10
    updates: int = 120
    step_size: float = 0.05


SETTINGS: dict[str, type[RunSetting]] = {
    "NetTune-v0": TuningSetting,
    "NetLoss-v0": LossSetting,
    "NetRule-v0": RuleSetting,
    "NetAugment-v0": AugmentSetting,
}
"""The settings by environment, whatever its encoding."""


@dataclass(frozen=True)
class TuningProblem:
    """What an entrant of a comparison is given.

    Attributes:
        setting: the runs, a `RunSetting`.
        tasks: training runs that it may draw, None for as many as its recipe has.
        seed: of weights and training tasks.
    """

    setting: Any
    tasks: int | None
    seed: int


def first_seed(seed: int) -> int:
    """The first seed of tasks that a run's search compares on: after those that an agent learns from."""
    return (seed + 1) * TASKS_OF_A_RUN + TASKS_OF_A_RUN // 2


@dataclass(frozen=True)
class Played:
    """How finished runs did, (tasks,) each.

    Attributes:
        validation, test: metrics of the final networks on the validation and on the test part.
        task: the numbers of the tasks by name.
    """

    validation: NDArray[np.float64]
    test: NDArray[np.float64]
    task: dict[str, NDArray[Any]]


def play(policy: Policy, setting: RunSetting, tasks: int, split: str = "test", *, deterministic: bool = True) -> Played:
    """One run on each of `tasks` tasks of a split, the same for every policy."""
    assert split in SPLITS
    envs = gym.make_vec(setting.env_id, num_envs=tasks, autoreset_mode="Disabled", **setting.arguments(split))
    observation, info = envs.reset(seed=0)
    for _ in range(setting.horizon):
        action, _ = policy.predict(observation, deterministic=deterministic)
        observation, _, _, _, info = envs.step(action)
    envs.close()
    return Played(info[f"validation_{setting.measured}"], info[f"test_{setting.measured}"], info["task"])

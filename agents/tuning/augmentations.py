"""Augmentation policies: searched for by an agent or at random, and those that need no search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.decisions.augmentations import NAMES, AugmentationPolicy, Step
from gym_reml.evaluation import Policy
from gym_reml.files import write_text
from gym_reml.networks.modules import seeded

from .schedules import TUNING_TASKS
from .setting import AugmentSetting, Played, TuningProblem, first_seed
from .training import Recipe, train

CHILDREN = 6_000
"""Networks that are trained by policies of an agent that learns."""
CANDIDATES, TRIALS, BEST = 64, 32, 5
"""Of so many policies, each tried on so many training tasks, so many are joined."""
FIRST_TRIALS = 8
"""Training tasks that every policy of a random search is tried on."""
ROWS = 64
"""Networks side by side."""
MAGNITUDES = tuple(round(0.1 * tenths, 1) for tenths in range(1, 11))
BINS = 11


@dataclass(frozen=True)
class FoundPolicy:
    """An augmentation policy, and what it cost to find.

    Attributes:
        setting: the trainings that it is for.
        policy: the policy.
        children: networks that were trained in the search.
        seconds: of the search.
        parameters: of the agent.
        notes: what was tuned, or found.
    """

    setting: AugmentSetting
    policy: AugmentationPolicy
    children: int = 0
    seconds: float = 0.0
    parameters: int = 0
    notes: dict[str, float | str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Environment steps of the search."""
        return self.children * self.setting.horizon

    def __call__(self, setting: AugmentSetting, tasks: int) -> Played:
        """Networks that are trained by it on so many held-out tasks of the setting."""
        return train_children(self.policy, setting, tasks)


def train_children(policy: AugmentationPolicy, setting: AugmentSetting, tasks: int, split: str = "test") -> Played:
    """One network for each of so many tasks of a split, the same for every policy, trained by it."""
    parts = []
    for first in range(0, tasks, ROWS):
        rows = min(ROWS, tasks - first)
        envs: Any = gym.make_vec(setting.env_id, rows, autoreset_mode="Disabled", **setting.arguments(split))
        envs.reset(seed=first)
        parts.append(envs.unwrapped.tuning.train_with([policy] * rows))
        envs.close()
    names = (f"validation_{setting.measured}", f"test_{setting.measured}")
    validation, test = (np.concatenate([part[name] for part in parts]) for name in names)
    return Played(
        validation, test, {name: np.concatenate([part["task"][name] for part in parts]) for name in parts[0]["task"]}
    )


def scores(
    policies: Sequence[AugmentationPolicy], setting: AugmentSetting, seeds: Sequence[int]
) -> NDArray[np.float64]:
    """The mean validation metric of each policy on the training tasks of these seeds, the same for all."""
    rows = min(ROWS, len(policies))
    envs: Any = gym.make_vec(setting.env_id, rows, autoreset_mode="Disabled", **setting.arguments("train"))
    found = []
    for first in range(0, len(policies), rows):
        some = list(policies[first : first + rows])
        some += [AugmentationPolicy()] * (rows - len(some))
        total = np.zeros(rows)
        for seed in seeds:
            envs.reset(seed=[seed] * rows)
            total += envs.unwrapped.tuning.train_with(some)[f"validation_{setting.measured}"]
        found.append(total / len(seeds))
    envs.close()
    return np.concatenate(found)[: len(policies)]


def sampled(policy: Policy, setting: AugmentSetting, count: int, seed: int) -> list[AugmentationPolicy]:
    """Augmentation policies that an agent draws."""
    arguments = setting.arguments("train") | {"updates": 1}
    envs: Any = gym.make_vec(setting.env_id, count, autoreset_mode="Disabled", **arguments)
    observation, _ = envs.reset(seed=seed)
    with seeded(seed):
        for _ in range(setting.horizon):
            action, _ = policy.predict(observation, deterministic=False)
            observation, *_ = envs.step(action)
    envs.close()
    return [envs.unwrapped.tuning.policy(row) for row in range(count)]


def random_policies(setting: AugmentSetting, count: int, seed: int) -> list[AugmentationPolicy]:
    """Uniformly random ones of those that an episode can build."""
    generator = np.random.default_rng(seed)
    drawn = [
        [
            Step(NAMES[one], *(int(bin) / (BINS - 1) for bin in bins))
            for one, bins in zip(operations, numbers, strict=True)
        ]
        for operations, numbers in zip(
            generator.integers(len(NAMES), size=(count, setting.horizon)),
            generator.integers(BINS, size=(count, setting.horizon, 2)),
            strict=True,
        )
    ]
    return [AugmentationPolicy(tuple(zip(steps[::2], steps[1::2], strict=True))) for steps in drawn]


def rand_augment(magnitude: float) -> AugmentationPolicy:
    """Two random operations of this magnitude (Cubuk et al. 2020, arXiv:1909.13719)."""
    return AugmentationPolicy(
        tuple((Step(one, 1.0, magnitude), Step(other, 1.0, magnitude)) for one in NAMES for other in NAMES)
    )


def trivial_augment(magnitude: float) -> AugmentationPolicy:
    """One random operation of a random magnitude up to this (Mueller and Hutter 2021, arXiv:2103.10158)."""
    places = np.linspace(0.0, magnitude, 31).tolist()
    return AugmentationPolicy(tuple((Step(name, 1.0, place),) for name in NAMES for place in places))


def best_magnitude(make: Callable[[float], AugmentationPolicy], problem: TuningProblem, folder: Path) -> FoundPolicy:
    """The magnitude that does best on validation tasks, by the validation metric; all tried are written down."""
    setting, start = _setting(problem), time.monotonic()
    found = [
        float(train_children(make(magnitude), setting, TUNING_TASKS, "validation").validation.mean())
        for magnitude in MAGNITUDES
    ]
    write_text(folder / "tried.json", json.dumps(dict(zip(map(str, MAGNITUDES), found, strict=True))))
    magnitude = MAGNITUDES[int(np.argmax(found))]
    return _written(
        FoundPolicy(
            setting,
            make(magnitude),
            len(MAGNITUDES) * TUNING_TASKS,
            time.monotonic() - start,
            notes={"magnitude": magnitude},
        ),
        folder,
    )


def random_search(problem: TuningProblem, folder: Path) -> FoundPolicy:
    """As many networks as in the agent's search, for random policies: a few for each, and more for the better ones."""
    setting, first, start = _setting(problem), first_seed(problem.seed), time.monotonic()
    policies = random_policies(setting, max(_children(problem) // FIRST_TRIALS, BEST), first)
    found = scores(policies, setting, range(first + TRIALS, first + TRIALS + FIRST_TRIALS))
    candidates = [policies[place] for place in np.argsort(-found, kind="stable")[:CANDIDATES]]
    joined, children = _best(candidates, problem)
    children += len(policies) * FIRST_TRIALS
    notes: dict[str, float | str] = {"policy": str(joined)}
    return _written(FoundPolicy(setting, joined, children, time.monotonic() - start, notes=notes), folder)


def agents_search(problem: TuningProblem, folder: Path, recipe: Recipe) -> FoundPolicy:
    """An agent builds policies and is rewarded for what they are worth; then the best of those it draws are joined."""
    setting = _setting(problem)
    recipe = recipe.limited(_children(problem), setting.horizon)
    agent = train(setting, recipe, seed=problem.seed, folder=folder)
    start = time.monotonic()
    candidates = sampled(agent.policy, setting, CANDIDATES, first_seed(problem.seed))
    joined, children = _best(candidates, problem)
    seconds = agent.seconds + time.monotonic() - start
    children += agent.steps // setting.horizon
    notes: dict[str, float | str] = {"policy": str(joined)}
    return _written(FoundPolicy(setting, joined, children, seconds, agent.parameters, notes), folder)


def no_policy(problem: TuningProblem) -> FoundPolicy:
    """No augmentation."""
    return FoundPolicy(_setting(problem), AugmentationPolicy())


def random_policy(problem: TuningProblem) -> FoundPolicy:
    """As many random policies joined as searches join."""
    setting = _setting(problem)
    return FoundPolicy(setting, AugmentationPolicy.joined(random_policies(setting, BEST, first_seed(problem.seed))))


def _best(candidates: Sequence[AugmentationPolicy], problem: TuningProblem) -> tuple[AugmentationPolicy, int]:
    """The best policies joined, and how many networks this took."""
    first = first_seed(problem.seed)
    found = scores(candidates, _setting(problem), range(first, first + TRIALS))
    best = [candidates[place] for place in np.argsort(-found, kind="stable")[:BEST]]
    return AugmentationPolicy.joined(best), len(candidates) * TRIALS


def _written(found: FoundPolicy, folder: Path) -> FoundPolicy:
    write_text(folder / "policy.json", found.policy.to_json())
    write_text(folder / "policy.txt", f"{found.policy}\n")
    return found


def _setting(problem: TuningProblem) -> AugmentSetting:
    assert isinstance(problem.setting, AugmentSetting)
    return problem.setting


def _children(problem: TuningProblem) -> int:
    return CHILDREN if problem.tasks is None else problem.tasks

"""Update rules in a comparison: known ones, and those that a policy writes, each with its step size tuned."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.utils import set_random_seed

from gym_reml.decisions.update_rules import OPERANDS, RULES, Rule, options
from gym_reml.evaluation import Policy
from gym_reml.files import write_text

from .schedules import example
from .setting import Played, RuleSetting, RunSetting, first_seed, play
from .training import TuningAgent

RATES = tuple(float(rate) for rate in np.logspace(-4, 1, 11))
"""The step sizes that are tried of each rule, two a decade."""
TUNING_TASKS = 40
"""Validation tasks that step sizes are tuned on, and rules are chosen on."""
WRITTEN = 256
"""Rules that a policy writes after its training."""
ROWS = 64
"""Rules side by side."""
TRIED_AGAIN, TRIALS = 64, 16
"""How many of the rules that did best when they were written are tried on so many more training tasks."""
CANDIDATES = 12
"""How many of the rules that did best there are tuned; the best of them is chosen."""


@dataclass(frozen=True)
class FixedRule:
    """A policy that writes one rule."""

    setting: RunSetting
    rule: Rule

    def predict(
        self, observation: NDArray[np.float32], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.int64], Any]:
        """Actions (n, 5) for observations (n, size)."""
        return self.rule.choices(self.setting.horizon)[_groups(self.setting, observation)], state


@dataclass(frozen=True)
class RandomRules:
    """A policy that draws every choice uniformly among the options there are."""

    setting: RunSetting
    generator: np.random.Generator

    def predict(
        self, observation: NDArray[np.float32], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[np.int64], Any]:
        """Actions (n, 5) for observations (n, size)."""
        sizes = np.tile([len(names) for names in options(self.setting.horizon)], (len(observation), 1))
        sizes[:, :2] = len(OPERANDS) + _groups(self.setting, observation)[:, None]
        return self.generator.integers(sizes), state


def random_rules(setting: RunSetting, seed: int) -> RandomRules:
    """The policy, with random numbers from this seed."""
    return RandomRules(setting, np.random.default_rng(seed))


def _groups(setting: RunSetting, observation: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many groups have been written, (n,)."""
    progress = observation[:, example(setting).parts["progress"].start]
    return np.rint(progress * setting.horizon).astype(np.int64)


@dataclass(frozen=True)
class FoundRule:
    """A rule, and what it cost to find.

    Attributes:
        rule: the rule.
        agent: which found it, if one did.
        steps: environment steps of the search, those of training included.
        seconds: of the search, training included.
        parameters: of the agent.
    """

    rule: Rule
    agent: TuningAgent | None = None
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0

    @property
    def notes(self) -> dict[str, Any]:
        """The rule as a formula."""
        return {"rule": self.rule.formula}

    def __call__(self, setting: RuleSetting, tasks: int) -> Played:
        """Held-out runs at the step size that does best on validation tasks of their family."""
        rate, _ = tune(self.rule, setting)
        return play(FixedRule(setting, self.rule), replace(setting, rates=(rate,)), tasks)

    def average(self, setting: RuleSetting, tasks: int) -> Played:
        """Held-out runs of all the rules that the agent writes, at the best of the setting's rates."""
        assert self.agent is not None
        set_random_seed(0)
        return play(self.agent.policy, setting, tasks, deterministic=False)


def known_rule(name: str) -> FoundRule:
    """One of `RULES`."""
    return FoundRule(RULES[name])


def tune(rule: Rule, setting: RuleSetting) -> tuple[float, float]:
    """The best of `RATES`, and the mean validation accuracy at it, on the same validation tasks for every rule."""
    _, info = _try(rule, replace(setting, tasks=TUNING_TASKS, rates=RATES), "validation", seed=0)
    return float(info["rate"][0]), float(info[f"validation_{setting.measured}"][0])


def search(
    policy: Policy,
    setting: RuleSetting,
    folder: Path,
    *,
    seed: int,
    more: int = 0,
    agent: TuningAgent | None = None,
) -> FoundRule:
    """The best rule of those that a policy writes on training tasks.

    The rules that did best there, once each, are tried on more of them, the same for all; those that then do best are
    tuned on validation tasks, and the best one there is chosen. It is written into
    the folder as `rule.json`; all that were tuned are in `tried.json`.

    Args:
        policy: writes `WRITTEN` rules, and these many more.
        setting: of the runs.
        folder: for the files.
        seed: of the policy and of the training tasks.
        more: rules.
        agent: which the policy is of, if it is of one.
    """
    set_random_seed(seed)
    start = time.monotonic()
    first = first_seed(seed)
    found = _write_rules(policy, setting, WRITTEN + more, first)
    # One task says little of a rule, so the better ones are tried on more tasks, the same for all.
    better = sorted(found, key=lambda rule: -np.mean(found[rule]))[:TRIED_AGAIN]
    again = {rule: _try(rule, replace(setting, tasks=TRIALS), "train", seed=first)[0] for rule in better}
    best = sorted(better, key=lambda rule: -again[rule])[:CANDIDATES]
    tried = {rule: tune(rule, setting)[1] for rule in best}
    chosen = max(tried, key=lambda rule: tried[rule])
    write_text(folder / "tried.json", json.dumps({rule.formula: accuracy for rule, accuracy in tried.items()}))
    chosen.save(folder / "rule.json")
    tries = -(-(WRITTEN + more) // ROWS) * ROWS + len(better) * TRIALS
    return FoundRule(
        chosen,
        agent,
        tries * setting.horizon + (0 if agent is None else agent.steps),
        time.monotonic() - start + (0.0 if agent is None else agent.seconds),
        0 if agent is None else agent.parameters,
    )


def _write_rules(policy: Policy, setting: RuleSetting, count: int, seed: int) -> dict[Rule, list[float]]:
    """Different rules that a policy writes in so many episodes on training tasks, with all their rewards."""
    envs: Any = gym.make_vec(setting.env_id, num_envs=ROWS, autoreset_mode="Disabled", **setting.arguments("train"))
    found: dict[Rule, list[float]] = {}
    observation, _ = envs.reset(seed=seed)
    for _ in range(-(-count // envs.num_envs)):
        for _ in range(setting.horizon):
            action, _ = policy.predict(observation, deterministic=False)
            observation, reward, *_ = envs.step(action)
        for row, gained in enumerate(reward.tolist()):
            found.setdefault(envs.unwrapped.rule(row), []).append(gained)
        observation, _ = envs.reset()
    envs.close()
    return found


def _try(rule: Rule, setting: RuleSetting, split: str, seed: int) -> tuple[float, dict[str, Any]]:
    """The reward of a rule on the setting's tasks, and the info of it.

    One row has all the tasks, so that the best step size is that of their mean.
    """
    envs: Any = gym.make_vec(setting.env_id, num_envs=1, autoreset_mode="Disabled", **setting.arguments(split))
    envs.reset(seed=seed)
    for group in rule.choices(setting.horizon):
        _, reward, _, _, info = envs.step(group[None])
    envs.close()
    return float(reward[0]), info

"""The classical policies that RL² is compared with, by kind of trial."""

from __future__ import annotations

from typing import Any

from .classical.bandits import UCB1, BanditPolicy, EpsilonGreedy, Gittins, RandomArm, Thompson, epsilon_for
from .classical.tabular import BEB, PSRL, Greedy, Myopic, Oracle, RandomAction, TabularPolicy, bonus_for
from .rl2.recipes import ACTIONS, INNER_STEPS, STATES, Setting


def baselines(setting: Setting, seed: int = 0) -> dict[str, BanditPolicy | TabularPolicy]:
    """The baselines of a setting by name; those that draw do so as the seed says."""
    if setting.env == "bandit":
        assert setting.arms is not None
        return _named(
            Gittins(setting.arms, setting.episodes),
            UCB1(setting.arms),
            Thompson(setting.arms, seed),
            EpsilonGreedy(setting.arms, epsilon_for(setting.episodes), seed),
            RandomArm(setting.arms, seed),
        )
    if setting.env == "tabular":
        size: dict[str, Any] = {"states": STATES, "actions": ACTIONS, "steps": INNER_STEPS["tabular"]}
        return _named(
            Oracle(**size),
            Myopic(bonus_for("myopic", setting.episodes), **size),
            BEB(bonus_for("beb", setting.episodes), **size),
            Greedy(**size),
            PSRL(**size, seed=seed),
            RandomAction(**size, seed=seed),
        )
    return {}


def _named(*policies: Any) -> dict[str, Any]:
    return {policy.name: policy for policy in policies}

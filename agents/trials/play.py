"""Evaluation of policies on held-out trials."""

from __future__ import annotations

from gym_reml.evaluation import Policy, evaluate_trials
from gym_reml.evaluation.trials import TrialReturns

from .rl2.recipes import Setting


def play(policy: Policy, setting: Setting, trials: int, split: str = "test", seed: int = 0) -> TrialReturns:
    """How a policy does on trials of the setting, taking its best action always."""
    return evaluate_trials(
        policy, setting.env_id, trials, seed=seed, split=split, deterministic=True, **setting.arguments
    )

"""How each of the thirteen SB3 and sb3-contrib algorithms is set up as a meta-learner."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from stable_baselines3.common.distributions import MultiCategoricalDistribution
from stable_baselines3.common.vec_env import VecNormalize

from gym_reml.evaluation.meta_learner import find_algorithm
from gym_reml.sb3 import HybridPolicy, RecurrentHybridPolicy

from ..runs.schedules import LinearSchedule
from .designs import CAREFUL, DESIGNS, HYBRID, Design, ReadParts, places
from .distributions import UncheckedCategories
from .rollouts import native

ENCODINGS = {
    **dict.fromkeys(("PPO", "A2C", "TRPO", "RecurrentPPO", "MaskablePPO"), "multidiscrete"),
    **dict.fromkeys(("DQN", "QRDQN"), "discrete"),
    **dict.fromkeys(("SAC", "TD3", "DDPG", "TQC", "CrossQ", "ARS"), "box"),
}
"""The encoding that each algorithm takes and learns fastest on."""

MINI_BATCHES = 4
WIDE: dict[str, dict[str, Any]] = {"policy_kwargs": {"net_arch": [128, 128]}}
PROXIMAL = {
    **WIDE,
    "n_steps": 20,
    "n_epochs": 4,
    "gae_lambda": 0.95,
    "ent_coef": 0.005,
    "gamma": 1.0,
}
# A quarter million transitions fill hundreds of megabytes; more would mostly be stale ones of an older pool.
OFF_POLICY = {**WIDE, "gamma": 0.99, "buffer_size": 100_000, "learning_starts": 2_000, "gradient_steps": 8}

SETTINGS: dict[str, dict[str, Any]] = {
    "PPO": PROXIMAL,
    "MaskablePPO": PROXIMAL,
    "RecurrentPPO": PROXIMAL,
    "A2C": {**WIDE, "n_steps": 5, "gamma": 1.0, "ent_coef": 0.005},
    "TRPO": {**WIDE, "n_steps": 20, "gamma": 1.0},
    "ARS": {"n_delta": 16},
    "DQN": {**OFF_POLICY, "exploration_fraction": 0.3},
    "QRDQN": {**OFF_POLICY, "exploration_fraction": 0.3},
    "SAC": OFF_POLICY,
    "TD3": OFF_POLICY,
    "DDPG": OFF_POLICY,
    "TQC": OFF_POLICY,
    "CrossQ": OFF_POLICY,
}
"""Hyper-parameters that differ from the libraries' defaults."""

WITH_LEARNING_RATE = tuple(name for name in ENCODINGS if name != "ARS")
"""Algorithms that are given a recipe's learning rate. ARS, which has no gradient, keeps the library's."""


def encoding_of(algorithm: str, design: Design) -> str:
    """The encoding of actions that suits an algorithm and what there is to decide."""
    return "box" if design.hybrid and algorithm in HYBRID else ENCODINGS[algorithm]


def settings_of(algorithm: str, design: Design) -> dict[str, Any]:
    """Hyper-parameters that differ from the libraries' defaults, a copy."""
    # The libraries write into the dictionaries they are given.
    settings = deepcopy(SETTINGS[algorithm])
    return settings | {name: value for name, value in design.settings.items() if name in settings}


def full_settings(algorithm: str, design: Design, n_envs: int, learning_rate: float) -> dict[str, Any]:
    """The same, and those that depend on the number of environments and on the recipe."""
    settings = settings_of(algorithm, design)
    if "n_steps" in settings and algorithm != "A2C":
        settings["batch_size"] = settings["n_steps"] * n_envs // MINI_BATCHES
    return settings | ({"learning_rate": learning_rate} if algorithm in WITH_LEARNING_RATE else {})


def make_agent(
    algorithm: str,
    env: VecNormalize,
    *,
    seed: int,
    learning_rate: float,
    log_folder: str | None,
    design: Design = DESIGNS["layers"],
) -> Any:
    """The algorithm on that environment, its learning rate falling linearly to zero."""
    policy: Any = (
        "MlpLstmPolicy" if algorithm == "RecurrentPPO" else "LinearPolicy" if algorithm == "ARS" else "MlpPolicy"
    )
    settings = full_settings(algorithm, design, env.num_envs, learning_rate)
    policy_kwargs = settings.get("policy_kwargs", {})
    if design.hybrid and algorithm in HYBRID:
        policy = RecurrentHybridPolicy if algorithm == "RecurrentPPO" else HybridPolicy
        policy_kwargs |= {"log_std_init": CAREFUL}
    if design.parts:
        index = places(native(env).mdp.parts, design.parts)
        policy_kwargs |= {"features_extractor_class": ReadParts, "features_extractor_kwargs": {"index": index}}
    if policy_kwargs:
        settings["policy_kwargs"] = policy_kwargs
    if algorithm in WITH_LEARNING_RATE:
        settings["learning_rate"] = LinearSchedule(learning_rate)
    agent = find_algorithm(algorithm)(policy, env, seed=seed, device="cpu", tensorboard_log=log_folder, **settings)
    # Not of subclasses, nor of MaskablePPO's own.
    if type(getattr(agent.policy, "action_dist", None)) is MultiCategoricalDistribution:
        agent.policy.action_dist = UncheckedCategories(agent.policy.action_dist.action_dims)
    return agent


def prefer_neutral_steps(agent: Any, layers: int, step_bins: int, advantage: float = 2.0) -> None:
    """Lets an untrained multidiscrete policy favour the middle bin of the step, which is MAML where the pool has rates.

    The other encodings start around the middle by themselves (box) or have no prior to set (discrete).
    """
    # ARS has an action net too, but no bias.
    head = getattr(getattr(agent.policy, "action_net", None), "bias", None)
    if head is not None and head.shape == (layers + 1 + step_bins,):
        head.data[layers + 1 + step_bins // 2] += advantage

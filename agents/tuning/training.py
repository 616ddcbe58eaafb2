"""Training an agent at the dials: Stable-Baselines3's PPO on the native vector environment."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from gym_reml.evaluation import Policy
from gym_reml.evaluation.saved_policy import policy_from_state, policy_state
from gym_reml.files import load_safely, save_atomically
from gym_reml.sb3 import make_vec_env

from ..runs.run import TASKS_OF_A_RUN
from ..runs.schedules import LinearSchedule
from .setting import TuningSetting

FORMAT = "gym_reml.TuningAgent/1"


@dataclass(frozen=True)
class TuningRecipe:
    """Settings of PPO: a rollout is one run of each environment."""

    total_steps: int = 120_000
    """environment steps of the run"""
    n_envs: int = 64
    """runs side by side"""
    batch_size: int = 256
    """decisions of a minibatch of PPO's own"""
    epochs: int = 8
    """passes over a rollout"""
    learning_rate: float = 1e-3
    """Adam's initial learning rate; annealed linearly to 0"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation; rewards are not discounted"""
    log_std: float = -1.0
    """initial log standard deviation of the policy"""


@dataclass(frozen=True)
class TuningAgent:
    """A finished run.

    Attributes:
        policy: takes observations as the environment gives them.
        steps: environment steps.
        seconds: of training.
        parameters: of the policy, the critic included.
    """

    policy: Policy
    steps: int
    seconds: float
    parameters: int


def train(setting: TuningSetting, recipe: TuningRecipe, *, seed: int, folder: Path) -> TuningAgent:
    """Trains an agent, or loads the one in the folder.

    Raises:
        ValueError: a file in the folder that is no agent of this version.
    """
    path = folder / "agent.pt"
    if not path.is_file():
        envs = make_vec_env(setting.env_id, n_envs=recipe.n_envs, **setting.arguments("train"))
        learn(envs, setting.horizon, recipe, seed=seed, path=path, setting=asdict(setting))
    return load(path)


def load(path: Path) -> TuningAgent:
    """The agent in a file that `learn` wrote.

    Raises:
        ValueError: a file that holds no agent of this version.
    """
    state = load_safely(path)
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != FORMAT:
        raise ValueError(f"{path}: not an agent this version reads (found {found!r}, expected {FORMAT!r})")
    about = json.loads(state["about"])
    agent = policy_from_state(about["policy"], state["policy"])
    parameters = sum(tensor.numel() for tensor in agent.policy.parameters())
    return TuningAgent(agent, about["steps"], about["seconds"], parameters)


def learn(
    envs: VecEnv, horizon: int, recipe: TuningRecipe, *, seed: int, path: Path, setting: Mapping[str, Any]
) -> None:
    """Trains PPO, and writes it to a file.

    Args:
        envs: `recipe.n_envs` of them, whose episodes all have `horizon` steps; closed afterwards.
        horizon: see there.
        recipe: settings.
        seed: of weights and training tasks.
        path: of the file.
        setting: what the file says of the environments.
    """
    # No two runs shall meet in their tasks.
    first = (seed + 1) * TASKS_OF_A_RUN
    agent = PPO(
        "MlpPolicy",
        envs,
        n_steps=horizon,
        batch_size=recipe.batch_size,
        n_epochs=recipe.epochs,
        learning_rate=LinearSchedule(recipe.learning_rate),
        gamma=1.0,
        gae_lambda=recipe.gae_lambda,
        policy_kwargs={"log_std_init": recipe.log_std},
        seed=seed,
        device="cpu",
    )
    # SB3 has just seeded the environment as it seeds itself.
    envs.seed(first)
    begun = time.monotonic()
    agent.learn(recipe.total_steps)
    envs.close()
    policy, weights = policy_state(agent)
    about = {
        "policy": policy,
        "steps": agent.num_timesteps,
        "seconds": time.monotonic() - begun,
        "setting": dict(setting),
        "recipe": asdict(recipe),
    }
    save_atomically({"format": FORMAT, "about": json.dumps(about), "policy": weights}, path)

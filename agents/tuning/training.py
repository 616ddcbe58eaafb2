"""Training an agent at the dials: an algorithm of Stable-Baselines3 on the native vector environment."""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from gym_reml.evaluation import Policy
from gym_reml.evaluation.saved_policy import policy_from_state, policy_state
from gym_reml.files import load_safely, save_atomically, write_text
from gym_reml.sb3 import make_vec_env

from ..runs.checkpoints import begin_episodes, restore_agent, save_agent
from ..runs.progress import Progress
from ..runs.run import CHECKPOINTS, TASKS_OF_A_RUN, keep_checkpoint, latest_checkpoint
from ..runs.schedules import LinearSchedule
from .setting import RunSetting

FORMAT = "gym_reml.TuningAgent/1"
FILE, SECONDS = "agent.pt", "seconds.txt"


R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True)
class Recipe(ABC):
    """Settings of an algorithm of Stable-Baselines3: a rollout is one run of each environment.

    Attributes:
        algorithm: the class; a new one is a recipe in a file of its own, and rows of `agents.comparison.entrants`.
    """

    algorithm: ClassVar[type[OnPolicyAlgorithm]]

    total_steps: int = 120_000
    """environment steps of the run"""
    n_envs: int = 64
    """runs side by side"""
    learning_rate: float = 1e-3
    """Adam's initial learning rate; annealed linearly to 0"""
    log_std: float = -1.0
    """initial log standard deviation of the policy's numbers"""
    entropy: float = 0.0
    """weight of the policy's entropy in the loss"""

    @property
    @abstractmethod
    def own(self) -> dict[str, Any]:
        """The arguments that only this algorithm has."""

    def limited(self: R, episodes: int | None, horizon: int) -> R:
        """As many steps as these episodes have; None for the recipe's own."""
        return self if episodes is None else replace(self, total_steps=episodes * horizon)

    def make(self, envs: VecEnv, horizon: int, *, seed: int, log_folder: Path) -> Any:
        """The algorithm, untrained; rewards are not discounted."""
        kind: Any = self.algorithm
        return kind(
            "MlpPolicy",
            envs,
            n_steps=horizon,
            learning_rate=LinearSchedule(self.learning_rate),
            gamma=1.0,
            ent_coef=self.entropy,
            policy_kwargs={"log_std_init": self.log_std},
            seed=seed,
            device="cpu",
            tensorboard_log=str(log_folder),
            **self.own,
        )


@dataclass(frozen=True)
class TuningRecipe(Recipe):
    """Settings of PPO."""

    algorithm = PPO

    batch_size: int = 256
    """decisions of a minibatch of PPO's own"""
    epochs: int = 8
    """passes over a rollout"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""

    @property
    def own(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "n_epochs": self.epochs, "gae_lambda": self.gae_lambda}


@dataclass(frozen=True)
class TuningAgent:
    """A finished run.

    Attributes:
        setting: what it was trained on, such as a `RunSetting`.
        policy: takes observations as the environment gives them.
        steps: environment steps.
        seconds: of training.
        parameters: of the policy, the critic included.
    """

    setting: Any
    policy: Policy
    steps: int
    seconds: float
    parameters: int


def train(setting: RunSetting, recipe: Recipe, *, seed: int, folder: Path) -> TuningAgent:
    """Trains an agent, from the checkpoint in the folder if there is one, or loads the finished one.

    Raises:
        ValueError: a file in the folder that is no agent or checkpoint of this version.
    """
    if not (folder / FILE).is_file():
        envs = make_vec_env(setting.env_id, n_envs=recipe.n_envs, **setting.arguments("train"))
        learn(envs, setting.horizon, recipe, seed=seed, folder=folder, setting=asdict(setting))
    return load(folder, setting)


def load(folder: Path, setting: Any) -> TuningAgent:
    """The finished agent in the folder.

    Raises:
        ValueError: a file in the folder that is no agent of this version.
    """
    path = folder / FILE
    state = load_safely(path)
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != FORMAT:
        raise ValueError(f"{path}: not an agent this version reads (found {found!r}, expected {FORMAT!r})")
    about = json.loads(state["about"])
    agent = policy_from_state(about["policy"], state["policy"])
    parameters = sum(tensor.numel() for tensor in agent.policy.parameters())
    return TuningAgent(setting, agent, about["steps"], about["seconds"], parameters)


def learn(envs: VecEnv, horizon: int, recipe: Recipe, *, seed: int, folder: Path, setting: Mapping[str, Any]) -> None:
    """Trains an agent, from the checkpoint in the folder if there is one, and writes the agent there.

    Args:
        envs: `recipe.n_envs` of them, whose episodes all have `horizon` steps; closed afterwards.
        horizon: see there.
        recipe: settings.
        seed: of weights and training tasks.
        folder: of the files.
        setting: what the file says of the environments.
    """
    # No two runs shall meet in their tasks.
    first = (seed + 1) * TASKS_OF_A_RUN
    agent = recipe.make(envs, horizon, seed=seed, log_folder=folder / "tensorboard")
    name = recipe.algorithm.__name__.lower()
    before = 0.0
    found = latest_checkpoint(folder)
    if found is not None:
        restore_agent(agent, envs, found[1])
        before = float((found[1] / SECONDS).read_text(encoding="utf-8"))
    # SB3 has just seeded the environment as it seeds itself.
    begin_episodes(agent, envs, first)
    begun = time.monotonic() - before

    def write(part: Path) -> None:
        save_agent(agent, envs, part)
        write_text(part / SECONDS, str(time.monotonic() - begun))

    def keep() -> None:
        keep_checkpoint(folder, agent.num_timesteps, write)
        begin_episodes(agent, envs, first)

    left = recipe.total_steps - agent.num_timesteps
    with tqdm(total=recipe.total_steps, initial=agent.num_timesteps, desc=name, unit="step", unit_scale=True) as bar:
        if left > 0:
            agent.learn(left, Progress(bar, keep), reset_num_timesteps=False, tb_log_name=name)
    envs.close()
    policy, weights = policy_state(agent)
    about = {
        "policy": policy,
        "steps": agent.num_timesteps,
        "seconds": time.monotonic() - begun,
        "setting": dict(setting),
        "recipe": asdict(recipe),
    }
    save_atomically({"format": FORMAT, "about": json.dumps(about), "policy": weights}, folder / FILE)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

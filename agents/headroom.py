"""How much there is to learn in the registered environment: `python -m agents.headroom`.

Mean episode return on held-out tasks of agents that cannot see, of plain SB3 agents, and of the per-task oracle.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from rich import print as show
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy

from gym_reml.envs.net_build import NetBuildEnv
from gym_reml.evaluation import MetaLearner, Result, evaluate
from gym_reml.evaluation.controls import STEP_GRID, best_composition, oracle, random_layer
from gym_reml.evaluation.plans import plan_learner
from gym_reml.evaluation.results import half_width
from gym_reml.files import write_text
from gym_reml.sb3 import HybridPolicy, make_vec_env
from gym_reml.spaces import ActionEncoding

from .runs.command_line import default_is, run_command

HORIZON = 5
STEPS = tuple(range(1, HORIZON + 1))


@dataclass(frozen=True)
class Config:
    """Mean episode returns on the default environment."""

    tasks: int = 500
    """held-out tasks"""
    seed: int = 0
    """of the agents"""
    agents: tuple[str, ...] = ("ppo-box", "ppo-hybrid-policy", "ppo-multidiscrete", "dqn-discrete", "sac-box")
    """which agents to train"""
    out: Annotated[Path | None, default_is("nowhere")] = None
    """where to write the figures as JSON"""


class RandomAgent:
    """Samples the action space."""

    def __init__(self, encoding: ActionEncoding, seed: int) -> None:
        self.space = gym.vector.utils.batch_space(encoding.space, 1)
        self.space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Random actions."""
        return np.concatenate([self.space.sample() for _ in observation]), state


def ppo(env_id: str, seed: int, policy: str | type[ActorCriticPolicy] = "MlpPolicy") -> Any:
    """PPO, 200,000 steps, all else SB3's defaults."""
    env = make_vec_env(env_id, n_envs=64)
    return PPO(policy, env, n_steps=32, seed=seed, device="cpu").learn(200_000)


def ppo_hybrid(env_id: str, seed: int) -> Any:
    """The same with a categorical layer and a Gaussian step instead of a Gaussian for all of the box."""
    return ppo(env_id, seed, HybridPolicy)


def dqn(env_id: str, seed: int) -> Any:
    """DQN, 100,000 steps."""
    env = make_vec_env(env_id, n_envs=8)
    return DQN("MlpPolicy", env, seed=seed, device="cpu", gradient_steps=8, learning_rate=5e-4).learn(100_000)


def sac(env_id: str, seed: int) -> Any:
    """SAC, 40,000 steps."""
    env = make_vec_env(env_id, n_envs=32)
    return SAC("MlpPolicy", env, seed=seed, device="cpu", gradient_steps=16, learning_rate=1e-3).learn(40_000)


AGENTS: dict[str, tuple[str, Callable[[str, int], Any]]] = {
    "ppo-box": ("NetBuild-v0", ppo),
    "ppo-hybrid-policy": ("NetBuild-v0", ppo_hybrid),
    "ppo-multidiscrete": ("NetBuildMultiDiscrete-v0", ppo),
    "dqn-discrete": ("NetBuildDiscrete-v0", dqn),
    "sac-box": ("NetBuild-v0", sac),
}


def returns(result: Result) -> NDArray[np.float64]:
    """Return of every task's episode, under the default reward."""
    return -np.mean([np.log1p(result.values(step)) for step in STEPS], axis=0)


def main(config: Config) -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    env = NetBuildEnv()
    protocol: dict[str, Any] = {"steps": STEPS, "tasks": config.tasks}
    plain = MetaLearner("agent", RandomAgent(env.action_encoding, config.seed), env.pool, {"action": "box"})
    rows: dict[str, dict[str, float]] = {}

    def note(name: str, result: Result, seconds: float = 0.0) -> None:
        values = returns(result)
        rows[name] = {"return": float(values.mean()), "ci95": half_width(values), "seconds": seconds}
        show(f"{name:28s} {values.mean():7.3f} ± {half_width(values):.3f}  {seconds:5.0f} s")

    note("random actions", evaluate(plain, "sinusoid", **protocol))
    candidates = [
        random_layer(plan_learner("agent", env.pool, {}, (1, 1), step), "sinusoid", **protocol) for step in STEP_GRID
    ]
    note("random layers, constant step", max(candidates, key=lambda result: float(returns(result).mean())))
    note("best single composition", best_composition(plain, "sinusoid", **protocol))
    note("oracle", oracle(plain, "sinusoid", **protocol))
    low, high = rows["random layers, constant step"]["return"], rows["oracle"]["return"]
    for name in config.agents:
        env_id, train = AGENTS[name]
        start = time.perf_counter()
        agent = train(env_id, config.seed)
        seconds = time.perf_counter() - start
        learner = MetaLearner.from_sb3(agent, name=name)
        note(name, evaluate(learner, "sinusoid", **protocol), seconds)
        rows[name]["share of the gap"] = (rows[name]["return"] - low) / (high - low)
        show(f"{'':28s} {rows[name]['share of the gap']:.0%} of the gap")
    if config.out is not None:
        write_text(config.out, json.dumps(rows, indent=1))


if __name__ == "__main__":
    run_command(main, Config)

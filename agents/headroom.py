"""How much there is to learn in an environment: `python -m agents.headroom --env NetTune-v0`.

What a random policy reaches on held-out tasks, what the best fixed choice, what a trained agent, and, where there is
one, what an oracle that is told what agents have to find out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from rich import print as show
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy

from gym_reml.envs.net_build import NetBuildEnv
from gym_reml.evaluation import MetaLearner, Policy, Result, evaluate
from gym_reml.evaluation.controls import STEP_GRID, best_composition, oracle, random_layer
from gym_reml.evaluation.plans import plan_learner
from gym_reml.evaluation.results import half_width
from gym_reml.files import write_text
from gym_reml.sb3 import HybridPolicy, make_vec_env

from .comparison import siblings
from .reml.configuration import BUILD
from .runs.command_line import check_options, default_is, run_command
from .runs.run import Run
from .trials.baselines import baselines
from .trials.classical.oracles import BestArm, StraightToTheGoal
from .trials.play import play as play_trials
from .trials.rl2.recipes import IDS, Setting, rl2_recipe_for
from .trials.rl2.training import train as train_rl2
from .tuning.setting import SETTINGS, play

HORIZON = 5
STEPS = tuple(range(1, HORIZON + 1))

ROLES = ("random", "fixed", "trained", "oracle")
QUICK_TASKS, QUICK_TRAINING = 16, 32
"""Held-out and training tasks."""
QUICK_RUNS = {"horizon": 4, "updates": 2}
"""Decisions of a run of training, and minibatches of each."""

FIXED = {
    "NetTune-v0": "constant",
    "NetLoss-v0": "fixed_loss",
    "NetAugment-v0": "rand_augment",
    "NetRule-v0": "rmsprop",
    "BanditTrial-v0": "ucb1",
    "TabularTrial-v0": "myopic",
    "NavigationTrial-v0": "stays at the start",
}
"""The best choice that takes no training, by environment: an entrant of its benchmark."""

TOLD = {"NetTune-v0": "constant_per_task", "NetLoss-v0": "fixed_loss_per_kind"}
"""The entrants that are told what agents have to find out."""

TRIALS = {env_id: name for name, env_id in IDS.items()}

if TYPE_CHECKING:
    AnyEnv = str
    Role = str
else:
    ENVS = (BUILD, *SETTINGS, *TRIALS)
    AnyEnv, Role = Literal[ENVS], Literal[ROLES]


@dataclass(frozen=True)
class Config:
    """What random, fixed, trained and all-knowing policies reach on the same held-out tasks."""

    env: AnyEnv = BUILD
    """the environment, without arguments"""
    family: str | None = None
    """the distribution of data sets, of environments that have benchmarks on several"""
    who: tuple[Role, ...] = ROLES
    """whose figures are wanted"""
    tasks: int = 500
    """held-out tasks"""
    training_tasks: int | None = None
    """tasks that an agent is trained on; NetBuild-v0's agents have their own number of steps"""
    seed: int = 0
    """of the agents"""
    agents: tuple[str, ...] = ("ppo-box", "ppo-hybrid-policy", "ppo-multidiscrete", "dqn-discrete", "sac-box")
    """which agents to train on NetBuild-v0"""
    run: Path = Path("runs/headroom")
    """folder of the agents of other environments; those that are there are not trained again"""
    out: Annotated[Path | None, default_is("nowhere")] = None
    """where to write the figures as JSON"""
    quick: bool = False
    """everything tiny: shows that it works; the numbers mean nothing"""

    def implied(self) -> dict[str, str]:
        """What the environment implies, for `--help`."""
        family = "its own"
        if self.env in SETTINGS:
            family = siblings.Config(env=self.env, family=self.family).benchmark()[1].setting.family
        return {"family": family, "training_tasks": "as many as the recipe has"}


class Figure(NamedTuple):
    """What somebody reached.

    Attributes:
        role: of `ROLES`.
        name: in the table.
        values: (tasks,), of which larger ones are better.
        seconds: of training and tuning.
    """

    role: str
    name: str
    values: NDArray[np.float64]
    seconds: float = 0.0


class RandomAgent:
    """Samples the action space."""

    def __init__(self, space: gym.Space[Any], seed: int) -> None:
        self.space = space
        self.space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Random actions."""
        return np.stack([self.space.sample() for _ in observation]), state


class SameAction:
    """Always takes the action 0."""

    def __init__(self, space: gym.Space[Any]) -> None:
        self.action = np.zeros_like(space.sample())

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """That action for every row."""
        return np.stack([self.action] * len(observation)), state


# -- NetBuild-v0: plain agents of Stable-Baselines3 --------------------------------------------------------------------


def ppo(env_id: str, seed: int, steps: int, policy: str | type[ActorCriticPolicy] = "MlpPolicy") -> Any:
    """PPO, all but the length of a rollout SB3's defaults."""
    env = make_vec_env(env_id, n_envs=64)
    return PPO(policy, env, n_steps=32, seed=seed, device="cpu").learn(steps)


def dqn(env_id: str, seed: int, steps: int) -> Any:
    """DQN."""
    env = make_vec_env(env_id, n_envs=8)
    return DQN("MlpPolicy", env, seed=seed, device="cpu", gradient_steps=8, learning_rate=5e-4).learn(steps)


def sac(env_id: str, seed: int, steps: int) -> Any:
    """SAC."""
    env = make_vec_env(env_id, n_envs=32)
    return SAC("MlpPolicy", env, seed=seed, device="cpu", gradient_steps=16, learning_rate=1e-3).learn(steps)


AGENTS: dict[str, tuple[str, Callable[[str, int, int], Any], int]] = {
    "ppo-box": ("NetBuild-v0", ppo, 200_000),
    "ppo-hybrid-policy": ("NetBuild-v0", partial(ppo, policy=HybridPolicy), 200_000),
    "ppo-multidiscrete": ("NetBuildMultiDiscrete-v0", ppo, 200_000),
    "dqn-discrete": ("NetBuildDiscrete-v0", dqn, 100_000),
    "sac-box": ("NetBuild-v0", sac, 40_000),
}
"""The id, what trains the agent, and for how many steps."""


def returns(result: Result) -> NDArray[np.float64]:
    """Return of every task's episode, under the default reward."""
    return -np.mean([np.log1p(result.values(step)) for step in STEPS], axis=0)


def on_networks(config: Config) -> Iterator[Figure]:
    """Figures of `NetBuild-v0`: returns."""
    _check_no_family(config)
    env = NetBuildEnv()
    protocol: dict[str, Any] = {"steps": STEPS, "tasks": config.tasks}
    random = RandomAgent(env.action_encoding.space, config.seed)
    plain = MetaLearner("agent", random, env.pool, {"action": "box"})
    if "random" in config.who:
        yield Figure("random", "random actions", returns(evaluate(plain, "sinusoid", **protocol)))
    if "fixed" in config.who:
        plans = [plan_learner("agent", env.pool, {}, (1, 1), step) for step in STEP_GRID]
        candidates = [random_layer(plan, "sinusoid", **protocol) for plan in plans]
        best = max(candidates, key=lambda result: float(returns(result).mean()))
        yield Figure("fixed", "random layers, constant step", returns(best))
        yield Figure("fixed", "best single composition", returns(best_composition(plain, "sinusoid", **protocol)))
    if "oracle" in config.who:
        yield Figure("oracle", "oracle", returns(oracle(plain, "sinusoid", **protocol)))
    for name in config.agents if "trained" in config.who else ():
        env_id, train, steps = AGENTS[name]
        start = time.perf_counter()
        agent = train(env_id, config.seed, QUICK_TRAINING if config.quick else steps)
        seconds = time.perf_counter() - start
        learner = MetaLearner.from_sb3(agent, name=name)
        yield Figure("trained", name, returns(evaluate(learner, "sinusoid", **protocol)), seconds)


# -- its siblings: the entrants of their benchmarks --------------------------------------------------------------------


def on_runs(config: Config) -> Iterator[Figure]:
    """Figures of an environment that trains networks: the metric of the final ones on the test part."""
    _, benchmark = siblings.Config(env=config.env, family=config.family).benchmark()
    # Its own family alone: held-out ones ask for data.
    benchmark = replace(benchmark, held_out=())
    setting: Any = benchmark.setting
    if config.quick:
        setting = replace(setting, **QUICK_RUNS)
    if "random" in config.who:
        env = gym.make(setting.env_id, **setting.arguments("test"))
        yield Figure(
            "random", "random actions", play(RandomAgent(env.action_space, config.seed), setting, config.tasks).test
        )
    entrants = {"fixed": FIXED[config.env], "oracle": TOLD.get(config.env), "trained": siblings.AGENT}
    for role, name in entrants.items():
        if role in config.who and name is not None:
            found = benchmark.measure(
                name,
                setting,
                seed=config.seed,
                tasks=config.training_tasks,
                evaluation_tasks=config.tasks,
                folder=_folder(config) / setting.folder / name,
            )
            result = found.results[setting.family][0]
            yield Figure(role, name, result.values(1, setting.measured), found.seconds)


# -- trials ------------------------------------------------------------------------------------------------------------


def on_trials(config: Config) -> Iterator[Figure]:
    """Figures of an environment whose episodes are trials: returns."""
    _check_no_family(config)
    name: Any = TRIALS[config.env]
    setting = Setting.of(name)
    env: Any = gym.make(config.env, **setting.arguments)
    known: dict[str, Policy] = dict(baselines(setting, config.seed))
    policies: dict[str, tuple[str, Policy]] = {
        "random": ("random actions", known.get("random", RandomAgent(env.action_space, config.seed))),
        "fixed": (FIXED[config.env], known.get(FIXED[config.env], SameAction(env.action_space))),
        "oracle": ("oracle", known.get("oracle", BestArm() if setting.arms else StraightToTheGoal())),
    }
    for role, (label, policy) in policies.items():
        if role in config.who:
            yield Figure(role, label, play_trials(policy, setting, config.tasks).total)
    if "trained" in config.who:
        recipe = rl2_recipe_for(setting)
        if config.training_tasks is not None:
            recipe = replace(recipe, total_steps=config.training_tasks * setting.length)
        if config.quick:
            recipe = replace(recipe, n_envs=QUICK_TRAINING)
        run = Run.begun(_folder(config) / setting.family, recipe, "rl2")
        agent = train_rl2(run, setting, recipe, config.seed)
        yield Figure("trained", "rl2", play_trials(agent.policy, setting, config.tasks).total, agent.seconds)


def _check_no_family(config: Config) -> None:
    if config.family is not None:
        raise ValueError(f"--family {config.family}: only for {', '.join(SETTINGS)}")


def _folder(config: Config) -> Path:
    """Of agents that had this budget."""
    budget = "quick" if config.quick else config.training_tasks or "default"
    return config.run / config.env / f"{budget}-tasks" / f"seed-{config.seed}"


HEADROOM: dict[str, Callable[[Config], Iterator[Figure]]] = {
    BUILD: on_networks,
    **dict.fromkeys(SETTINGS, on_runs),
    **dict.fromkeys(TRIALS, on_trials),
}
"""What measures, by environment."""


def main(config: Config) -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    check_options(config, tasks=2, training_tasks=1, seed=0)
    if config.quick:
        config = replace(config, tasks=QUICK_TASKS, training_tasks=QUICK_TRAINING)
    rows: dict[str, dict[str, float | str]] = {}
    means: dict[str, float] = {}
    for role, name, values, seconds in HEADROOM[config.env](config):
        mean = float(values.mean())
        means.setdefault(role, mean)
        rows[name] = {"role": role, "mean": mean, "ci95": half_width(values), "seconds": seconds}
        show(f"{role:8s} {name:28s} {mean:8.3f} ± {half_width(values):.3f}  {seconds:5.0f} s")
        gap = means.get("oracle", np.nan) - means.get("fixed", np.nan)
        if role == "trained" and gap > 0.0:
            share = (mean - means["fixed"]) / gap
            rows[name]["share of the gap"] = share
            show(f"{'':37s} {share:.0%} of the gap between the fixed choice and the oracle")
    if config.out is not None:
        write_text(config.out, json.dumps(rows, indent=1))


if __name__ == "__main__":
    run_command(main, Config)

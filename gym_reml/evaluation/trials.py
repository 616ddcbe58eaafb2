"""The protocol for trials: one trial on each held-out task, and the returns of its inner episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

import gym_reml
from gym_reml.checks import check_integer
from gym_reml.envs.common.vector import make_native
from gym_reml.envs.trials.envs import TrialProcessView
from gym_reml.evaluation.meta_learner import Normaliser, Policy
from gym_reml.streams import check_split


@runtime_checkable
class Informed(Protocol):
    """A policy that receives the true tasks when trials begin: an oracle, not a baseline."""

    def inform(self, info: dict[str, Any]) -> None:
        """Called with the info of the vector environment's reset, before the first action."""
        ...


@dataclass(frozen=True)
class TrialReturns:
    """Returns of a policy in trials.

    Attributes:
        total: (trials,) float64, return of each trial.
        episodes: (trials, H) float64, return of each inner episode; they sum to `total`.
    """

    total: NDArray[np.float64]
    episodes: NDArray[np.float64]

    def __repr__(self) -> str:
        trials, episodes = self.episodes.shape
        return f"TrialReturns({trials} trials of {episodes} episodes, mean return {self.total.mean():.3f})"


def evaluate_trials(
    policy: Policy,
    env_id: str | EnvSpec,
    trials: int = 1000,
    *,
    seed: int = 0,
    split: str = "test",
    deterministic: bool = True,
    normaliser: Normaliser | None = None,
    **env_kwargs: Any,
) -> TrialReturns:
    """Evaluates a policy on one trial of each of `trials` tasks, in parallel.

    Task i is drawn from seed + i of the split for every policy, so results can be compared pairwise.

    Args:
        policy: to evaluate; its recurrent state is reset only at the start of a trial.
        env_id: a registered id, or an `EnvSpec`, of an environment whose vector entry point is a `TrialVectorEnv`.
        trials: number of trials.
        seed: of the first task.
        split: "train", "validation" or "test".
        deterministic: whether the policy takes its most likely action, or samples.
        normaliser: applied to observations before the policy sees them.
        **env_kwargs: arguments of the environment, such as `arms`, or `episodes` of a trial.

    Raises:
        ValueError: an invalid number of trials, seed or split, or an id without such a vector entry point.
        TypeError: an unknown argument, or an `env_id` that is neither an id nor an `EnvSpec`.
    """
    check_integer("trials", trials)
    check_integer("seed", seed, least=0)
    check_split(split)
    instead = "Other environments do not run many trials in parallel"
    arguments = {"split": split, **env_kwargs}
    known = gym_reml.TRIALS
    env = make_native(env_id, trials, kind=TrialProcessView, known=known, instead=instead, arguments=arguments)
    try:
        return _run(env, policy, seed=seed, deterministic=deterministic, normaliser=normaliser)
    finally:
        env.close()


def _run(
    env: gym.vector.VectorEnv[Any, Any, Any],
    policy: Policy,
    *,
    seed: int,
    deterministic: bool,
    normaliser: Normaliser | None,
) -> TrialReturns:
    observation, info = env.reset(seed=seed)
    if isinstance(policy, Informed):
        policy.inform(info)
    rows = env.num_envs
    state: Any = None
    start, running = np.ones(rows, dtype=np.bool_), np.ones(rows, dtype=np.bool_)
    episode = np.zeros(rows, dtype=np.int64)
    rewards, episodes = [], []
    while running.any():
        normalised = observation if normaliser is None else normaliser(observation)
        action, state = policy.predict(normalised, state, start, deterministic=deterministic)
        observation, reward, terminated, truncated, _ = env.step(action)
        # Rows whose trial is over run another until the last one is over; its rewards are ignored.
        rewards.append(np.where(running, reward, 0.0))
        episodes.append(episode.copy())
        start = terminated | truncated
        running &= ~start
        # The last feature of an observation is 1 where an inner episode has just ended.
        episode += running & (observation[:, -1] > 0.5)
    by_episode = np.zeros((rows, int(episode.max()) + 1))
    np.add.at(by_episode, (np.arange(rows), np.stack(episodes)), np.stack(rewards))
    return TrialReturns(by_episode.sum(axis=1), by_episode)

"""The protocol for trials: a policy plays several episodes of each held-out task, and every episode's return counts."""

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
from gym_reml.envs.trials.envs import TrialsView
from gym_reml.evaluation.meta_learner import Normaliser, Policy
from gym_reml.streams import check_split


@runtime_checkable
class Informed(Protocol):
    """A policy that is told the tasks when trials begin: an oracle, never a rival."""

    def inform(self, info: dict[str, Any]) -> None:
        """Called with the vector environment's info at reset, before the first action."""
        ...


@dataclass(frozen=True)
class TrialReturns:
    """What a policy collected.

    Attributes:
        total: (trials,) float64, of each trial.
        episodes: (trials, H) float64, of each inner episode; they sum to `total`.
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
    seed: int = 0,
    split: str = "test",
    *,
    deterministic: bool = True,
    normaliser: Normaliser | None = None,
    **env_kwargs: Any,
) -> TrialReturns:
    """Lets the policy play one trial for each of `trials` tasks, all side by side.

    Task i is drawn from seed + i of the split, whoever is evaluated: results compare pairwise.

    Args:
        policy: who; its state is reset at the start of a trial and nowhere else.
        env_id: trials of this package, or of your own whose vector entry point is a `TrialVectorEnv`: a registered id,
            or an `EnvSpec`.
        trials: how many.
        seed: of the first task.
        split: "train", "validation" or "test".
        deterministic: whether the policy is asked for its best action, or for a draw.
        normaliser: applied to observations before the policy sees them.
        **env_kwargs: of the environment, such as `arms`, or `episodes` of a trial.

    Raises:
        ValueError: trials or seed that make no sense, a split that is none, or an id that has no such vector entry
            point.
        TypeError: an argument that does not exist, or something that is neither an id nor an `EnvSpec`.
    """
    check_integer("trials", trials)
    check_integer("seed", seed, least=0)
    check_split(split)
    instead = "Other environments have no rows that are played side by side"
    arguments = {"split": split, **env_kwargs}
    env = make_native(env_id, trials, kind=TrialsView, known=gym_reml.TRIALS, instead=instead, arguments=arguments)
    try:
        return _play(env, policy, seed, deterministic, normaliser)
    finally:
        env.close()


def _play(
    env: gym.vector.VectorEnv[Any, Any, Any],
    policy: Policy,
    seed: int,
    deterministic: bool,
    normaliser: Normaliser | None,
) -> TrialReturns:
    observation, info = env.reset(seed=seed)
    if isinstance(policy, Informed):
        policy.inform(info)
    rows = env.num_envs
    state: Any = None
    start, playing = np.ones(rows, dtype=np.bool_), np.ones(rows, dtype=np.bool_)
    episode = np.zeros(rows, dtype=np.int64)
    rewards, episodes = [], []
    while playing.any():
        seen = observation if normaliser is None else normaliser(observation)
        action, state = policy.predict(seen, state, start, deterministic=deterministic)
        observation, reward, terminated, truncated, _ = env.step(action)
        # Rows whose trial is over go on with another until the last one is: what they collect then counts nowhere.
        rewards.append(np.where(playing, reward, 0.0))
        episodes.append(episode.copy())
        start = terminated | truncated
        playing &= ~start
        # The last observed feature says that an inner episode ended.
        episode += playing & (observation[:, -1] > 0.5)
    by_episode = np.zeros((rows, int(episode.max()) + 1))
    np.add.at(by_episode, (np.arange(rows), np.stack(episodes)), np.stack(rewards))
    return TrialReturns(by_episode.sum(axis=1), by_episode)

"""`BanditTrial-v0`: find the best arm of a Bernoulli bandit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import check_integer
from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.trials.envs import TrialEnv, TrialVectorEnv
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.trial import InnerProcess, Rows
from gym_reml.streams import RowStreams


class Bandits(InnerProcess):
    """n Bernoulli bandits. An inner episode is one pull; the inner observation is empty."""

    name = "bandit"
    observation_limits = np.zeros((2, 0))
    reward_limits = (0.0, 1.0)

    def __init__(self, count: int, arms: int, *, pulls: int) -> None:
        """Creates n bandits, for trials of so many pulls."""
        for argument, value in (("num_envs", count), ("arms", arms), ("episodes", pulls)):
            check_integer(argument, value)
        self.count, self.actions = count, arms
        self._means = np.zeros((count, arms))
        # The reward of a pull is 1 if its uniform number in [0, 1) is below the arm's mean.
        self._uniforms = np.zeros((count, pulls))
        self._pulls = np.zeros(count, dtype=np.int64)
        self._every = np.arange(count)

    @property
    def tasks(self) -> dict[str, NDArray[Any]]:
        return {"means": self._means.copy()}

    def assign(self, rows: Rows, tasks: dict[str, NDArray[Any]]) -> None:
        self._means[rows] = tasks["means"]

    def check_tasks(self, tasks: dict[str, NDArray[Any]]) -> None:
        if ((tasks["means"] < 0.0) | (tasks["means"] > 1.0)).any():
            raise ValueError(f"options: task: means={tasks['means'].tolist()}: must be probabilities, from 0 to 1")

    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        for row, stream in zip(rows.tolist(), streams, strict=True):
            stream.task.random(out=self._means[row])
            stream.support.random(out=self._uniforms[row])
        self._pulls[rows] = 0

    def begin(self, rows: Rows) -> None:
        """Does nothing, since bandits have no state."""

    def observe(self) -> NDArray[Any]:
        return np.zeros((self.count, 0))

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        pull = np.minimum(self._pulls, self._uniforms.shape[1] - 1)
        self._pulls += 1
        rewarded = self._uniforms[self._every, pull] < self._means[self._every, actions]
        return rewarded.astype(np.float64), np.ones(self.count, dtype=np.bool_)


class BanditTrialEnv(TrialEnv):
    """Find the best arm of a Bernoulli bandit, and pull it.

    ## Description

    A trial draws a Bernoulli bandit with `arms` arms. The mean of each arm, the probability that a pull has reward 1
    rather than 0, is drawn uniformly from [0, 1]. The agent has `episodes` pulls and does not observe the means: for a
    high return it has to explore the arms and to remember their rewards. This is the
    multi-armed bandit of Duan et al. (2016), ["RL²: Fast Reinforcement Learning via Slow Reinforcement
    Learning"](https://arxiv.org/abs/1611.02779), section 3.1.

    ## Action space

    `Discrete(arms)`: which arm to pull.

    ## Observation space

    A `Box` of `arms` + 2 float32:

    | Part | Size | Meaning |
    |---|---|---|
    | previous action | `arms` | one-hot; arm 0 at the start of a trial |
    | previous reward | 1 | 0 or 1, also during the burn-in; 0 at the start of a trial |
    | previous done | 1 | always 1: every pull is one inner episode |

    ## Rewards

    1 with the probability of the arm that is pulled, else 0. The first `burn_in` pulls have reward 0; their true
    rewards are observed.

    ## Starting state

    A newly drawn bandit.

    ## Episode end

    `terminated` after `episodes` pulls; never truncated.

    ## Information

    | Name | Value |
    |---|---|
    | `task` | a dict: `means` (`arms`,), for evaluation; `reset(options={"task": ...})` takes such a dict |
    | `inner_episode` | number of the pull, from 0; 0 after a reset |
    | `inner_reward` | its reward, also during the burn-in; 0 after a reset |

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `arms` | `5` | arms of a bandit |
    | `episodes` | `10` | pulls of a trial |
    | `burn_in` | `0` | number of first pulls without reward |
    | `split` | `"train"` | or `"validation"`, `"test"`, whose tasks are drawn from other random streams |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` |

    ## Version history

    * v0: first release.
    """

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        arms: int = 5,
        episodes: int = 10,
        burn_in: int = 0,
        split: str = "train",
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(
            Bandits(1, arms, pulls=episodes), TrialBudget(episodes, burn_in), split=split, render_mode=render_mode
        )


class BanditTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of `gym.make_vec("BanditTrial-v0", num_envs=n)`; see `BanditTrialEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        arms: int = 5,
        episodes: int = 10,
        burn_in: int = 0,
        split: str = "train",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `BanditTrialEnv`, and those of every vector environment (see `TrialVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(
            Bandits(num_envs, arms, pulls=episodes),
            TrialBudget(episodes, burn_in),
            split=split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            output=output,
        )

"""RL²'s settings: which trials it is trained and tested on, and by which recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

EnvName = Literal["bandit", "tabular", "navigation"]

ARMS = 5
EPISODES: dict[str, int] = {"bandit": 10, "tabular": 10, "navigation": 2}
"""Default number of inner episodes of a trial."""
IDS = {"bandit": "BanditTrial-v0", "tabular": "TabularTrial-v0", "navigation": "NavigationTrial-v0"}
STATES, ACTIONS = 10, 5
"""Of tabular processes."""
INNER_STEPS = {"bandit": 1, "tabular": 10, "navigation": 100}
"""Steps of an inner episode (at most, in navigation)."""


@dataclass(frozen=True)
class Setting:
    """A trial environment with its arguments.

    Attributes:
        env: which.
        episodes: inner episodes of a trial: pulls of a bandit.
        arms: of a bandit; None elsewhere.
    """

    env: EnvName
    episodes: int
    arms: int | None = None

    @classmethod
    def of(cls, env: EnvName, episodes: int | None = None, arms: int | None = None) -> Setting:
        """The setting with usual numbers where none are given.

        Raises:
            ValueError: an environment that is none, arms where there are no arms, or too few of something.
        """
        if env not in IDS:
            raise ValueError(f"env={env!r}: must be one of {', '.join(map(repr, get_args(EnvName)))}")
        if env != "bandit" and arms is not None:
            raise ValueError(f"arms={arms!r}: only bandits have arms, not {env!r}")
        arms = (ARMS if arms is None else arms) if env == "bandit" else None
        episodes = EPISODES[env] if episodes is None else episodes
        for name, value, least in (("episodes", episodes, 2), ("arms", arms, 2)):
            if value is not None and value < least:
                raise ValueError(f"{name}={value!r}: must be at least {least}")
        return cls(env, episodes, arms)

    @property
    def env_id(self) -> str:
        """The registered id."""
        return IDS[self.env]

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the environment."""
        return {"episodes": self.episodes} | ({} if self.arms is None else {"arms": self.arms})

    @property
    def family(self) -> str:
        """What tables call the tasks."""
        return self.env if self.arms is None else f"{self.env}-{self.arms}"

    @property
    def length(self) -> int:
        """Steps of a trial, at most."""
        return self.episodes * INNER_STEPS[self.env]

    def __str__(self) -> str:
        return f"{self.family}, {self.episodes} episodes a trial"


@dataclass(frozen=True)
class TrialProblem:
    """What an entrant of a comparison on trials is given.

    Attributes:
        setting: which trials.
        tasks: training trials, None for as many as the recipe has.
        seed: of weights and training tasks, or of what a classical policy draws.
    """

    setting: Setting
    tasks: int | None
    seed: int


@dataclass(frozen=True)
class Rl2Recipe:
    """Settings of RecurrentPPO on trials: a rollout of each environment is as long as the longest trial."""

    total_steps: int
    """environment steps of the run"""
    n_envs: int = 256
    """trials side by side"""
    minibatch: int = 32
    """trials that have as many steps as a minibatch"""
    epochs: int = 4
    """passes over a rollout"""
    learning_rate: float = 1e-3
    """Adam's initial learning rate; annealed linearly to 0"""
    entropy: float = 0.01
    """initial coefficient of the entropy bonus; annealed linearly to 0"""
    gamma: float = 0.99
    """discount"""
    gae_lambda: float = 0.9
    """lambda of generalised advantage estimation"""
    lstm: int = 64
    """units of the LSTM, which actor and critic share"""
    heads: tuple[int, ...] = (64,)
    """hidden layers between the LSTM and each of the actor's and the critic's outputs"""
    forget_bias: float = 1.0
    """initial bias of the LSTM's forget gates, see `TrialLstmPolicy`"""
    pairs: bool = False
    """whether pairs of state and action are features (`PairFeatures`)"""


BANDITS = Rl2Recipe(3_000_000)
LONG_BANDITS = Rl2Recipe(12_000_000)
TABULAR = Rl2Recipe(15_000_000, learning_rate=2e-3, gamma=0.0, lstm=128, forget_bias=4.0, pairs=True)
"""With a discount above 0 the rest of the trial's return is noise larger than the signal; see docs/trials.md."""
NAVIGATION = Rl2Recipe(2_000_000)
SHORT = 30
"""Pulls up to which a trial of a bandit is short."""


def rl2_recipe_for(setting: Setting) -> Rl2Recipe:
    """The recipe that validation tasks chose for such trials."""
    if setting.env == "bandit":
        return BANDITS if setting.episodes <= SHORT else LONG_BANDITS
    return TABULAR if setting.env == "tabular" else NAVIGATION

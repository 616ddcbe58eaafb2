"""RL²'s settings: which trials it is trained and tested on, and by which recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

EnvName = Literal["bandit", "tabular", "navigation"]

ARMS = 5
EPISODES: dict[str, int] = {"bandit": 10, "tabular": 10, "navigation": 2}
"""Inner episodes of a trial where no number is asked for."""
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
    """How RecurrentPPO is set up: rollouts as long as the longest trial, minibatches as large as some trials.

    Attributes:
        total_steps: environment steps of the training.
        n_envs: trials side by side.
        minibatch: trials that have as many steps as a minibatch.
        epochs: passes over a rollout.
        learning_rate: at the beginning; it falls linearly to zero.
        entropy: coefficient of the entropy bonus at the beginning; it falls linearly to zero.
        gamma, gae_lambda: of the advantages.
        lstm: units of the LSTM, which actor and critic share.
        heads: hidden layers between the LSTMs and what they are read out as.
        forget_bias: see `TrialLstmPolicy`.
        pairs: whether the memory is handed pairs of state and action (`PairFeatures`).
    """

    total_steps: int
    n_envs: int = 256
    minibatch: int = 32
    epochs: int = 4
    learning_rate: float = 1e-3
    entropy: float = 0.01
    gamma: float = 0.99
    gae_lambda: float = 0.9
    lstm: int = 64
    heads: tuple[int, ...] = (64,)
    forget_bias: float = 1.0
    pairs: bool = False


BANDITS = Rl2Recipe(3_000_000)
LONG_BANDITS = Rl2Recipe(12_000_000)
TABULAR = Rl2Recipe(15_000_000, learning_rate=2e-3, gamma=0.0, lstm=128, forget_bias=4.0, pairs=True)
"""Without a discount the gradients drown in what the rest of the trial pays; see docs/trials.md."""
NAVIGATION = Rl2Recipe(2_000_000)
SHORT = 30
"""Pulls up to which a trial of a bandit is short."""


def rl2_recipe_for(setting: Setting) -> Rl2Recipe:
    """The recipe that validation tasks chose for such trials."""
    if setting.env == "bandit":
        return BANDITS if setting.episodes <= SHORT else LONG_BANDITS
    return TABULAR if setting.env == "tabular" else NAVIGATION

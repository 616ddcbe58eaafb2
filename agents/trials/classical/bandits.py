"""Classical policies of Bernoulli bandits: they count each arm's rewards, from the observations of the trial alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .gittins import gittins_indices
from .policies import Rows, Seen, TrialPolicy, nearest

EXPLORATION = 0.1
"""UCB1's factor; the textbook's 1 explores far too much for rewards of arms that are uniformly good."""
EPSILONS = {10: 0.0, 100: 0.02, 500: 0.05}
"""Epsilon-greedy's epsilon by the pulls of a trial: of 0, .005, .01, .02, .05 and .1 the best on 1,000 training tasks.

In trials this short, the arms' prior mean of a half makes the greedy choice explore by itself."""


def epsilon_for(pulls: int) -> float:
    """That of the tuned length that is nearest, in ratio."""
    return EPSILONS[nearest(pulls, EPSILONS)]


@dataclass
class Counts:
    """The rewards of the arms so far.

    Attributes:
        pulls, successes: (n, arms) float64.
    """

    pulls: NDArray[np.float64]
    successes: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """(n, arms) the posterior means under Beta(1, 1)."""
        return (1.0 + self.successes) / (2.0 + self.pulls)


class BanditPolicy(TrialPolicy[Counts]):
    """A policy of Bernoulli arms whose means have the prior Beta(1, 1)."""

    def remember(self, rows: int) -> Counts:
        """No arm was pulled."""
        return Counts(np.zeros((rows, self.actions)), np.zeros((rows, self.actions)))

    def forget(self, memory: Counts, rows: Rows) -> None:
        """Those rows start to count anew."""
        memory.pulls[rows] = 0.0
        memory.successes[rows] = 0.0

    def learn(self, memory: Counts, seen: Seen, rows: Rows) -> None:
        """Counts the last pull."""
        memory.pulls[rows, seen.action[rows]] += 1.0
        memory.successes[rows, seen.action[rows]] += seen.reward[rows]

    def choose(self, memory: Counts, seen: Seen, streams: list[np.random.Generator]) -> NDArray[np.int64]:
        """The arms (n,) with the highest index; of equal ones the first, as all arms are alike beforehand.

        Raises:
            ValueError: observations that are not those of a bandit with as many arms.
        """
        if seen.inner.shape[1]:
            raise ValueError(
                f"arms={self.actions}: observations are those of {self.actions + seen.inner.shape[1]} arms"
            )
        return self.index(memory, streams).argmax(axis=1)

    @abstractmethod
    def index(self, counts: Counts, streams: list[np.random.Generator]) -> NDArray[np.float64]:
        """(n, arms) index of each arm; the highest is pulled."""


class RandomArm(BanditPolicy):
    """Any arm."""

    name = "random"

    def index(self, counts: Counts, streams: list[np.random.Generator]) -> NDArray[np.float64]:
        """Uniform numbers."""
        return np.stack([stream.random(self.actions) for stream in streams])


class Gittins(BanditPolicy):
    """The arm with the highest Gittins index: optimal if the future is discounted and endless (Gittins 1979).

    The discount stands for a trial of `pulls` pulls: 1 - 1 / pulls, under which a pull is followed by as many on
    average.
    """

    name = "gittins"

    def __init__(self, arms: int, pulls: int, seed: int = 0) -> None:
        """For trials of `pulls` pulls.

        Raises:
            ValueError: fewer than two pulls, which leave nothing to explore.
        """
        if pulls < 2:
            raise ValueError(f"pulls={pulls!r}: must be at least 2")
        super().__init__(arms, seed)
        self.pulls = pulls

    def index(self, counts: Counts, streams: list[np.random.Generator]) -> NDArray[np.float64]:
        """From the table.

        Raises:
            ValueError: a trial of more pulls than the policy is for.
        """
        if counts.pulls.sum(axis=1).max() > self.pulls:
            raise ValueError(f"pulls={self.pulls}: the trial goes on for longer")
        table = gittins_indices(self.pulls, 1.0 - 1.0 / self.pulls)
        successes = counts.successes.astype(np.int64)
        return table[successes, counts.pulls.astype(np.int64) - successes]


class Thompson(BanditPolicy):
    """The arm that is best in a draw from the posterior (Thompson 1933)."""

    name = "thompson"

    def index(self, counts: Counts, streams: list[np.random.Generator]) -> NDArray[np.float64]:
        """A draw of each arm's mean from Beta(1 + successes, 1 + failures)."""
        first, second = 1.0 + counts.successes, 1.0 + counts.pulls - counts.successes
        return np.stack([stream.beta(a, b) for stream, a, b in zip(streams, first, second, strict=True)])


class UCB1(BanditPolicy):
    """An upper confidence bound on each arm's mean (Auer, Cesa-Bianchi & Fischer 2002), in its tuned form."""

    name = "ucb1"

    def __init__(self, arms: int, exploration: float = EXPLORATION, seed: int = 0) -> None:
        """With that factor before the bound."""
        super().__init__(arms, seed)
        self.exploration = exploration

    def index(self, counts: Counts, streams: list[np.random.Generator]) -> NDArray[np.float64]:
        """Posterior mean + exploration sqrt(2 ln t / (1 + pulls)) in the t-th pull."""
        turn = 1.0 + counts.pulls.sum(axis=1, keepdims=True)
        return counts.means + self.exploration * np.sqrt(2.0 * np.log(turn) / (1.0 + counts.pulls))


class EpsilonGreedy(BanditPolicy):
    """The arm with the highest posterior mean, and now and then any arm."""

    name = "epsilon_greedy"

    def __init__(self, arms: int, epsilon: float, seed: int = 0) -> None:
        """With that probability of any arm.

        Raises:
            ValueError: no probability.
        """
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon={epsilon!r}: must be between 0 and 1")
        super().__init__(arms, seed)
        self.epsilon = epsilon

    def index(self, counts: Counts, streams: list[np.random.Generator]) -> NDArray[np.float64]:
        """Posterior means, or uniform numbers."""
        draws = np.stack([stream.random(1 + self.actions) for stream in streams])
        return np.where(draws[:, :1] < self.epsilon, draws[:, 1:], counts.means)

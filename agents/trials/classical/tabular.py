"""Classical policies of random tabular processes: they plan with their belief, once for each inner episode."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .belief import Belief
from .planning import action_values
from .policies import Rows, Seen, TrialPolicy, nearest

BONUSES = {"beb": {10: 0.4, 25: 0.6, 50: 1.0}, "myopic": {10: 0.5, 25: 0.75, 50: 1.0}}
"""By the episodes of a trial: the best on 1,000 training tasks, of numbers from .25 to 1.5."""


def bonus_for(name: str, episodes: int) -> float:
    """The bonus of "beb" or "myopic": that of the tuned length that is nearest, in ratio."""
    return BONUSES[name][nearest(episodes, BONUSES[name])]


Model = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Transitions (n, states, actions, states) and mean rewards (n, states, actions)."""


@dataclass
class TabularMemory:
    """The state of a policy of tabular processes during a trial.

    Attributes:
        belief: the posterior.
        values: (steps, n, states, actions) the values of actions, by the step of the inner episode.
        state: (n,) int64, where the last action was taken.
        step: (n,) int64, the inner episode's clock.
    """

    belief: Belief
    values: NDArray[np.float64]
    state: NDArray[np.int64]
    step: NDArray[np.int64]


class TabularPolicy(TrialPolicy[TabularMemory]):
    """A policy that is given the prior and the number of steps, but nothing about its task."""

    def __init__(self, states: int = 10, actions: int = 5, steps: int = 10, seed: int = 0) -> None:
        """For processes of that size, with inner episodes of `steps` steps.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__(actions, seed)
        for name, value in (("states", states), ("steps", steps)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: must be a positive integer")
        self.states, self.steps = states, steps

    def remember(self, rows: int) -> TabularMemory:
        """An empty belief without a plan."""
        values = np.zeros((self.steps, rows, self.states, self.actions))
        nothing = np.zeros(rows, dtype=np.int64)
        return TabularMemory(Belief.empty(rows, self.states, self.actions), values, nothing, nothing.copy())

    def forget(self, memory: TabularMemory, rows: Rows) -> None:
        """Resets the belief of those rows."""
        memory.belief.clear(rows)

    def learn(self, memory: TabularMemory, seen: Seen, rows: Rows) -> None:
        """Adds the last step to the belief."""
        belief, before, action = memory.belief, memory.state[rows], seen.action[rows]
        belief.visits[rows, before, action] += 1.0
        belief.rewards[rows, before, action] += seen.reward[rows]
        # Where an inner episode ended, the observation is the first of the next one: the next state is not observed.
        going = ~seen.done[rows]
        arrived = seen.inner[rows[going]].argmax(axis=1)
        belief.arrivals[rows[going], before[going], action[going], arrived] += 1.0

    def choose(self, memory: TabularMemory, seen: Seen, streams: list[np.random.Generator]) -> NDArray[np.int64]:
        """The best action by the plan, which is made when an inner episode begins.

        Raises:
            ValueError: processes or inner episodes of another size than the policy is for.
        """
        memory.state = self.state_of(seen)
        beginning = np.flatnonzero(seen.done)
        memory.step += 1
        memory.step[beginning] = 0
        if memory.step.max() >= self.steps:
            raise ValueError(f"steps={self.steps}: inner episodes go on for longer")
        if len(beginning):
            memory.values[:, beginning] = action_values(*self.model(memory.belief, beginning, streams), self.steps)
        return memory.values[memory.step, np.arange(len(memory.state)), memory.state].argmax(axis=1)

    def state_of(self, seen: Seen) -> NDArray[np.int64]:
        """(n,) the states that are seen.

        Raises:
            ValueError: processes of another size than the policy is for.
        """
        if seen.inner.shape[1] != self.states:
            raise ValueError(f"states={self.states}: observations are those of {seen.inner.shape[1]} states")
        return seen.inner.argmax(axis=1)

    @abstractmethod
    def model(self, belief: Belief, rows: Rows, streams: list[np.random.Generator]) -> Model:
        """The processes that are planned in."""


class RandomAction(TabularPolicy):
    """Any action."""

    name = "random"

    def choose(self, memory: TabularMemory, seen: Seen, streams: list[np.random.Generator]) -> NDArray[np.int64]:
        """Uniform draws."""
        return np.array([stream.integers(self.actions) for stream in streams])

    def learn(self, memory: TabularMemory, seen: Seen, rows: Rows) -> None:
        """Nothing is learned."""

    def model(self, belief: Belief, rows: Rows, streams: list[np.random.Generator]) -> Model:
        """No plan is made."""
        raise NotImplementedError


class PSRL(TabularPolicy):
    """Optimal in a process drawn from the posterior (Strens 2000; Osband, Russo & Van Roy 2013)."""

    name = "psrl"

    def model(self, belief: Belief, rows: Rows, streams: list[np.random.Generator]) -> Model:
        """One draw a row."""
        transitions, rewards = zip(*(belief.sample(row, streams[row]) for row in rows.tolist()), strict=True)
        return np.stack(transitions), np.stack(rewards)


class Greedy(TabularPolicy):
    """Optimal in the mean of the posterior: certainty equivalence."""

    name = "greedy"

    def model(self, belief: Belief, rows: Rows, streams: list[np.random.Generator]) -> Model:
        """Posterior means."""
        return belief.mean_transitions(rows), belief.mean_rewards(rows)


class BEB(Greedy):
    """Greedy with a bonus for what was seldom tried (Kolter & Ng 2009, Bayesian exploration bonus)."""

    name = "beb"

    def __init__(self, bonus: float, states: int = 10, actions: int = 5, steps: int = 10, seed: int = 0) -> None:
        """With that bonus for what was never tried.

        Raises:
            ValueError: a negative bonus.
        """
        if bonus < 0.0:
            raise ValueError(f"bonus={bonus!r}: must not be negative")
        super().__init__(states, actions, steps, seed)
        self.bonus = bonus

    def model(self, belief: Belief, rows: Rows, streams: list[np.random.Generator]) -> Model:
        """Posterior means, and bonus / (1 + visits) on top of the rewards."""
        transitions, rewards = super().model(belief, rows, streams)
        return transitions, rewards + self.bonus / (1.0 + belief.visits[rows])


class Myopic(BEB):
    """Takes the action of highest expected reward, bonus included: plans nothing, but learns from every step.

    The others follow a plan until the inner episode is over. Where states follow each other almost at random, as here,
    that costs more than looking ahead brings, as long as little is known.
    """

    name = "myopic"

    def choose(self, memory: TabularMemory, seen: Seen, streams: list[np.random.Generator]) -> NDArray[np.int64]:
        """The action with the highest reward."""
        memory.state = self.state_of(seen)
        every = np.arange(len(memory.state))
        _, rewards = self.model(memory.belief, every, streams)
        return rewards[every, memory.state].argmax(axis=1)


class Oracle(TabularPolicy):
    """Optimal in the true process, which it is given: an upper bound, no baseline."""

    name = "oracle"

    def inform(self, info: dict[str, Any]) -> None:
        """Takes the tasks from the vector environment's info at reset."""
        task = info["task"]
        self._model: Model = task["transitions"].astype(np.float64), task["rewards"].astype(np.float64)

    def learn(self, memory: TabularMemory, seen: Seen, rows: Rows) -> None:
        """Does nothing: the process is given."""

    def model(self, belief: Belief, rows: Rows, streams: list[np.random.Generator]) -> Model:
        """The true processes.

        Raises:
            ValueError: the oracle was not given the tasks.
        """
        if not hasattr(self, "_model"):
            raise ValueError("the oracle has no tasks: call inform(info) with the info of the environment's reset")
        transitions, rewards = self._model
        return transitions[rows], rewards[rows]

"""Controls of an agent that chooses the sizes of policy-gradient steps: a rule by hand, and a regression."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.training.setup import Setup, make_setup
from gym_reml.evaluation import MetaLearner
from gym_reml.streams import row_streams
from gym_reml.tasks.policies.base import PolicyFamily

from ..problems.problem import TASKS_OF_A_PROBLEM

GRID = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
"""Places on the logarithmic range that the regression tries."""

REGRESSION_TASKS, RIDGE = 40, 1.0
BEST_WITHOUT_KNOWLEDGE = 38.0
"""Minus the return of navigation before any update."""


class Rule:
    """A policy that appends no layer, and whose step size is a function of observation and step."""

    def __init__(self, learner: MetaLearner, family: PolicyFamily) -> None:
        """For the learner's pool and arguments."""
        self.setup = setup_of(learner, family, 1)

    def place(self, observation: NDArray[np.float32], moment: int) -> NDArray[np.float64]:
        """Steps on the logarithmic range for observations (n, size), (n,) in [-1, 1]."""
        raise NotImplementedError

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The rule's actions; the state counts."""
        moment = 0 if state is None else state
        steps = np.clip(self.place(observation, moment), -1.0, 1.0).astype(np.float32)
        encoding = self.setup.encoding
        return encoding.encode(encoding.decision.decide(len(steps), step_size=steps)), moment + 1


class HandRule(Rule):
    """rate = first rate x (-return / 38): the first where nothing is known, and less in proportion to what is missing.

    The first rate is the pool's own, of its head in the first step: .5 for MAML-RL and what builds on it.
    """

    def __init__(self, learner: MetaLearner, family: PolicyFamily) -> None:
        super().__init__(learner, family)
        self.scale = family.return_scale
        self.rates = learner.pool.rates["head.matrix"].tolist()

    def place(self, observation: NDArray[np.float32], moment: int) -> NDArray[np.float64]:
        mdp = self.setup.mdp
        missing = -observation[:, mdp.parts["task"].start].astype(np.float64) * self.scale
        wanted = self.rates[0] * np.maximum(missing, 1e-3) / BEST_WITHOUT_KNOWLEDGE
        low, high = map(math.log, mdp.step_range)
        factor = np.log(wanted / self.rates[min(moment, len(self.rates) - 1)])
        return 2.0 * (factor - low) / (high - low) - 1.0


class RegressionRule(Rule):
    """The step that was best for the next return on training tasks, by ridge regression on what agents see."""

    def __init__(self, learner: MetaLearner, family: PolicyFamily, seed: int, tasks: int = REGRESSION_TASKS) -> None:
        super().__init__(learner, family)
        moments = self._best_steps(learner, family, seed, tasks)
        seen = np.concatenate(
            [self._features(observations, moment) for moment, (observations, _) in enumerate(moments)]
        )
        best = np.concatenate([steps for _, steps in moments])
        self.mean, self.deviation = seen.mean(axis=0), seen.std(axis=0) + 1e-3
        design = np.column_stack([(seen - self.mean) / self.deviation, np.ones(len(seen))])
        penalty = RIDGE * np.eye(design.shape[1])
        penalty[-1, -1] = 0.0
        self.weights = np.linalg.solve(design.T @ design + penalty, design.T @ best)

    def place(self, observation: NDArray[np.float32], moment: int) -> NDArray[np.float64]:
        unit = (self._features(observation, moment) - self.mean) / self.deviation
        result: NDArray[np.float64] = np.column_stack([unit, np.ones(len(unit))]) @ self.weights
        return result

    def _features(self, observation: NDArray[np.float32], moment: int) -> NDArray[np.float64]:
        """Returns, gradient norms and time: few enough for as many tasks."""
        parts = self.setup.mdp.parts
        shown = np.concatenate([observation[:, parts[name]] for name in ("task", "loss", "gradient_norms")], axis=1)
        first = np.full((len(shown), 1), float(moment == 0))
        missing = np.log(np.maximum(-shown[:, :1], 1e-3))
        return np.concatenate([shown, missing, first], axis=1).astype(np.float64)

    def _best_steps(
        self, learner: MetaLearner, family: PolicyFamily, seed: int, tasks: int
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float64]]]:
        """For training tasks before each of the horizon's steps, the steps before it being neutral.

        Returns:
            What agents see there (tasks, size), and the places of the steps with the best next returns (tasks,).
        """
        mdp = setup_of(learner, family, tasks).mdp
        streams = [row_streams((seed + 1) * TASKS_OF_A_PROBLEM - tasks + row, "train") for row in range(tasks)]
        mdp.seed(range(tasks), streams)
        mdp.reset()
        moments = []
        for _ in range(horizon_of(learner)):
            observations, returns = mdp.observe(), []
            for place in GRID:
                tried = deepcopy(mdp)
                tried.step(mdp.decision.decide(tasks, step_size=place))
                returns.append(-tried.query_loss)
            moments.append((observations, np.array(GRID)[np.argmax(returns, axis=0)]))
            mdp.step(mdp.decision.decide(tasks))
        return moments


def setup_of(learner: MetaLearner, family: PolicyFamily, count: int) -> Setup:
    """The learner's process, of so many rows."""
    return make_setup(
        count, family=family, pool=learner.pool, device=learner.pool.device, **(learner.arguments | {"action": "box"})
    )


def horizon_of(learner: MetaLearner) -> int:
    """How many steps the learner was trained for."""
    return int(learner.arguments["horizon"])


def rule_learner(name: str, learner: MetaLearner, rule: Rule) -> MetaLearner:
    """The same pool under a rule."""
    return MetaLearner(name, rule, learner.pool, learner.arguments | {"action": "box"})

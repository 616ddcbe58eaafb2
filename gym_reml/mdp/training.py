"""The Markov decision process of building and training networks: n rows of a task, a network and a clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.history import History
from gym_reml.mdp.network_training import NetworkTraining, Trained
from gym_reml.mdp.objective import FEEDBACKS, Objective
from gym_reml.mdp.observation import Observation
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.task_data import TaskData
from gym_reml.networks.torch_state import own_state
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.pool.subnetworks import SubNetworks
from gym_reml.spaces import Decided, layer_and_step
from gym_reml.spaces.decision import Masks
from gym_reml.streams import RowStreams
from gym_reml.tasks.base import Batch, TaskFamily, Tasks

Rows = NDArray[np.int64]
Array = NDArray[Any]


class TrainingMDP:
    """n independent episodes, each building and training one network for one task.

    It is put together from the data of the tasks, the networks in training, what agents see of them, and the history
    that a pool learner needs.

    Attributes:
        count: n.
        family, pool, objective, step_range: as given.
        decision: what is decided in a step: a "layer" and a "step_size".
        data: the tasks and their support and query sets.
        training: the networks in training, their losses and their clock.
        learner: changes the pool by the episodes that end, or None.
        learning: whether it does so at present.
    """

    @own_state
    def __init__(
        self,
        count: int,
        family: TaskFamily,
        pool: LayerPool,
        objective: Objective,
        *,
        slots: int,
        initial_layers: Sequence[int] = (),
        step_range: tuple[float, float] | None = None,
        learner: PoolLearner | None = None,
    ) -> None:
        """Sets the rows up; `seed` and `reset` must come before the first step.

        Raises:
            ValueError: a pool that was put together wrongly, or whose layers look across points of which tasks have
                different numbers.
        """
        pool.check()
        if pool.architecture.across_points and not isinstance(family.shots, int):
            raise ValueError(
                f"shots={family.shots!r}: layers of kind {pool.kind!r} look across the points of a task, "
                "of which there must be as many in each; give one number of shots, or another layer_kind"
            )
        self.count, self.family, self.pool, self.objective = count, family, pool, objective
        self.slots, self.initial_layers = slots, tuple(initial_layers)
        self.decision = layer_and_step(pool.layers)
        self.step_range = step_range or pool.step_range
        self.data = TaskData(family, count, device=pool.device, dtype=pool.dtype)
        self.training = NetworkTraining(self.data, pool, slots=slots, initial_layers=self.initial_layers)
        self._observation = Observation(self.training, self.decision, horizon=objective.horizon)
        self.learner = learner
        self.learning = learner is not None
        self._history = None if learner is None else History(self.training, learner, horizon=objective.horizon)
        self._every_row = np.arange(count)
        self._no_layer = np.arange(pool.layers + 1) == 0

    # -- its parts, as everyone needs them ---------------------------------------------------------------------------

    @property
    def networks(self) -> SubNetworks:
        """The sub-networks."""
        return self.training.networks

    @property
    def clock(self) -> NDArray[np.int64]:
        """(n,), steps taken in the present episode."""
        return self.training.clock

    @property
    def support_loss(self) -> NDArray[np.float64]:
        """(n,), of the present networks."""
        return self.training.support_loss

    @property
    def query_loss(self) -> NDArray[np.float64]:
        """(n,), of the present networks, as far as it counts; see `step`."""
        return self.training.query_loss

    @property
    def tasks(self) -> Tasks:
        """The tasks as the family draws them, by name, (n, ...)."""
        return self.data.tasks

    @property
    def support(self) -> Batch:
        """The support sets."""
        return self.data.support

    @property
    def query(self) -> Batch:
        """The query sets."""
        return self.data.query

    @property
    def streams(self) -> list[RowStreams]:
        """The rows' generators, or none before the first `seed`."""
        return self.data.streams

    @property
    def parts(self) -> dict[str, slice]:
        """The observation's parts, each a slice of the flat observation."""
        return self._observation.parts

    @property
    def observation_size(self) -> int:
        """Numbers of an observation."""
        return self._observation.size

    # -- episodes ----------------------------------------------------------------------------------------------------

    def seed(self, rows: Sequence[int] | Rows, streams: Sequence[RowStreams]) -> None:
        """Gives rows their random streams; everything these rows do follows from them."""
        self.data.seed(rows, streams)

    def read_task(self, given: Any, rows: Rows) -> Tasks:
        """The tasks that a user asks for in these rows; see `TaskFamily.read_task`."""
        return self.data.read_task(given, rows)

    @own_state
    @torch.inference_mode()
    def reset(self, rows: Rows | None = None, given: Tasks | None = None) -> dict[str, Any]:
        """Draws new tasks and starts new episodes in these rows (None: all).

        Args:
            rows: which.
            given: what `TaskFamily.read_task` made of the tasks that a user asks for in these rows, or None.

        Returns:
            info of all rows, arrays (n, ...) by name and dicts of such: the same names as after a step, where what a
            step says is 0.
        """
        rows = self._every_row if rows is None else rows
        self.data.draw(rows, given)
        self.training.restart(rows)
        self._observation.restart(rows if len(rows) < self.count else slice(None))
        if self._history is not None:
            self._history.restart(rows)
        zeros = np.zeros(self.count)
        terms = {self.objective.reward: zeros.copy(), "divergence": zeros.copy()}
        return self._info(zeros.astype(np.int64), zeros, diverged=zeros.astype(np.bool_), terms=terms)

    @own_state
    @torch.inference_mode()
    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows, (n, observation_size), as a copy."""
        return self._observation.observe()

    def allowed(self) -> Masks:
        """Which options each row may take, of layers (n, L + 1): all while there is room, then only 0."""
        return (self._no_layer | (self.networks.depth < self.slots)[:, None],)

    @own_state
    @torch.inference_mode()
    def step(self, decided: Decided) -> Outcome:
        """Appends each row's layer, then takes a gradient step whose size lies at `step_size` on the log range.

        A step is refused by what the agent may know: if the support loss after it is not finite, or above both the
        family's cap and what it was before, or if a weight is not finite. The query set has no say in it, so
        observations never depend on held-out data. In rewards and infos the query loss counts at most as much as the
        family's cap, or as it was at the episode's start if that is more; if it is not finite, so much. Rewards for
        the query loss have the term for divergence where that limit is passed, too.

        Rows past their horizon go on all the same, and stay terminated.
        """
        training, objective = self.training, self.objective
        step_sizes, scores = self.step_sizes(decided.numbers[:, 0]), training.scores
        trained = self._train(decided.choices[:, 0], step_sizes)
        self._observation.remember(trained.gradient_norms, decided)
        judged = FEEDBACKS.index(objective.feedback)
        lost = trained.diverged | training.query_diverged if objective.feedback == "query" else trained.diverged
        terms = objective.terms(scores[judged], training.scores[judged], self.clock, lost)
        info = self._info(trained.layers, step_sizes.astype(np.float64), diverged=trained.diverged, terms=terms)
        reward = terms[objective.reward] + terms["divergence"]
        outcome = Outcome(self._observation.observe(), reward, self.clock >= objective.horizon, info)
        if self.learning and self._history is not None:
            with torch.inference_mode(False):
                self._history.hand_over(np.flatnonzero(self.clock == objective.horizon))
        return outcome

    @own_state
    @torch.inference_mode()
    def train(self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> Trained:
        """What a step does to the networks alone: append layers (n,), descend by these step sizes (n,), measure."""
        return self._train(layers, step_sizes)

    def _train(self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> Trained:
        support = self.support
        trained = self.training.train(layers, step_sizes)
        if self.learning and self._history is not None:
            taken = np.where(trained.diverged, 0.0, step_sizes).astype(np.float32)
            self._history.record(support, layers=trained.layers, step_sizes=taken)
        return trained

    def step_sizes(self, places: NDArray[np.float32]) -> NDArray[np.float32]:
        """Step sizes at these places, in [-1, 1], of the logarithmic range."""
        low, high = map(math.log, self.step_range)
        with np.errstate(under="ignore"):  # what is too small for float32 becomes 0, here and in observations
            return np.exp(low + (places.astype(np.float64) + 1.0) * ((high - low) / 2.0)).astype(np.float32)

    @own_state
    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """The present networks' outputs at any inputs (n, points, in_features).

        Kinds that look across points take these for all the points there are, unless the pool has running statistics.
        """
        return self.training.outputs(inputs)

    def row_metrics(self, row: int) -> dict[str, float]:
        """The query metrics of one row's present network."""
        return {name: float(values[row]) for name, values in self.training.metrics.items()}

    def restart_learning(self) -> None:
        """The learner starts over, with the pool that it was made with; running episodes are not learned from."""
        if self.learner is not None and self._history is not None:
            self.learner.restart()
            self._history.forget()

    def _info(self, layer: Rows, step_size: Array, *, diverged: Array, terms: dict[str, Array]) -> dict[str, Any]:
        return {
            "support_loss": self.support_loss.copy(),
            "query_loss": self.query_loss.copy(),
            "depth": self.networks.depth.copy(),
            **{f"query_{name}": values.copy() for name, values in self.training.metrics.items()},
            "layer": layer,
            "step_size": step_size,
            "diverged": diverged,
            "reward_terms": terms,
            "task": dict(self.data.parameters),
        }

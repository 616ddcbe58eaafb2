"""The Markov decision process of building and training networks, for n rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.history import History
from gym_reml.mdp.minibatches import check_batch_size
from gym_reml.mdp.network_training import NetworkTraining, Trained
from gym_reml.mdp.objective import FEEDBACKS, Objective
from gym_reml.mdp.observation import Observation
from gym_reml.mdp.process import Outcome
from gym_reml.mdp.task_data import TaskData
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import CLIP
from gym_reml.networks.work import count_work
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.pool.subnetworks import SubNetworks
from gym_reml.spaces import Decided, layer_and_step
from gym_reml.spaces.decision import Masks
from gym_reml.streams import RowStreams
from gym_reml.tasks.base import Batch, TaskFamily, Tasks

STEP_SIZES = ("single", "layer")

Rows = NDArray[np.int64]
Array = NDArray[Any]


class TrainingMDP:
    """n independent episodes, each building and training one network for one task.

    It consists of the tasks' data, the networks under training, their observation, and the history for a pool learner.

    Attributes:
        count: number of rows, n.
        family: distribution of the tasks.
        pool: layers that networks are built from.
        objective: rewards of an episode.
        slots: number of pool layers that fit into a network.
        initial_layers: pool layers that are present at step 0.
        step_range: smallest and largest step size.
        clip: norm at which gradients are clipped, None for none.
        optimizer: name of the optimizer that takes the gradient steps.
        batch_size: number of points of a gradient step's minibatch; None for the whole support set.
        decision: the action space: a "layer" and a "step_size", or one for each position; see `layer_and_step`.
        data: the tasks and their support and query sets.
        training: the networks under training, their losses and their clock.
        learner: updates the pool from finished episodes, or None.
        learning: whether finished episodes are passed to the learner.
        tensors: whether the observation of a step is a tensor on the networks' device instead of an array.
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
        clip: float | None = CLIP,
        optimizer: str = "sgd",
        batch_size: int | None = None,
        step_sizes: str = "single",
        learner: PoolLearner | None = None,
        core: str = "torch",
    ) -> None:
        """Creates the process; call `seed` and `reset` before the first step.

        Args:
            count: n.
            family: distribution of tasks.
            pool: pool that the networks are built from.
            objective: rewards and horizon.
            slots: number of slots, the largest depth.
            initial_layers: numbers of the pool layers that networks start with.
            step_range: (low, high) step sizes; None for the pool's default.
            clip: largest norm of a network's support gradient, longer ones being scaled down; None for no limit.
            optimizer: takes the gradient steps, a name of `gym_reml.networks.optimizers.OPTIMIZERS`; its state begins
                with the episode.
            batch_size: number of points that each gradient step is taken on, a fresh minibatch of the support set (see
                `Minibatches`); None for all. Observations are of the whole support set.
            step_sizes: "single", or "layer" for a step size of its own at each position: stem, slots and head.
            learner: updates the pool from finished episodes; None for a fixed pool.
            core: what computes the networks, see `gym_reml.networks.compiled.find_core`.

        Raises:
            ValueError: an inconsistent pool, an unknown optimizer or choice of step sizes, a layer kind with batch
                statistics for tasks with different numbers of points, or see `check_batch_size`.
        """
        pool.check()
        if pool.architecture.across_points and not isinstance(family.shots, int):
            raise ValueError(
                f"shots={family.shots!r}: layers of kind {pool.kind!r} use batch statistics, so all "
                "tasks must have the same number of points; give one number of shots, or another layer_kind"
            )
        self.count, self.family, self.pool, self.objective = count, family, pool, objective
        self.slots, self.initial_layers, self.clip, self.optimizer = slots, tuple(initial_layers), clip, optimizer
        if batch_size is not None:
            check_batch_size(batch_size, family, pool)
        self.batch_size = batch_size
        if step_sizes not in STEP_SIZES:
            raise ValueError(f"step_sizes={step_sizes!r}: must be one of {', '.join(map(repr, STEP_SIZES))}")
        self._single = step_sizes == "single"
        self.decision = layer_and_step(pool.layers, None if self._single else slots)
        self.step_range = step_range or pool.step_range
        self.data = TaskData(family, count, device=pool.device, dtype=pool.dtype)
        self.training = NetworkTraining(
            self.data,
            pool,
            slots=slots,
            initial_layers=self.initial_layers,
            clip=clip,
            optimizer=optimizer,
            batch_size=batch_size,
            core=core,
        )
        self._observation = Observation(self.training, self.decision, horizon=objective.horizon)
        self.learner: PoolLearner | None = None
        self.learning = self.tensors = False
        self._history: History | None = None
        if learner is not None:
            self.learn_by(learner)
        self._every_row = np.arange(count)
        self._no_layer = np.arange(pool.layers + 1) == 0

    # -- attributes of the parts -------------------------------------------------------------------------------------

    @property
    def networks(self) -> SubNetworks:
        """The sub-networks."""
        return self.training.networks

    @property
    def clock(self) -> NDArray[np.int64]:
        """Number of steps taken in the current episode, (n,)."""
        return self.training.clock

    @property
    def support_loss(self) -> NDArray[np.float64]:
        """Support losses of the current networks, (n,)."""
        return self.training.support_loss

    @property
    def query_loss(self) -> NDArray[np.float64]:
        """Query losses of the current networks, (n,), capped as described in `step`."""
        return self.training.query_loss

    @property
    def tasks(self) -> Tasks:
        """The tasks, (n, ...) by name; see `TaskFamily.draw`."""
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
        """The rows' random streams; empty before the first `seed`."""
        return self.data.streams

    @property
    def parts(self) -> dict[str, slice]:
        """Slices of the flat observation by name."""
        return self._observation.parts

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self._observation.size

    # -- episodes ----------------------------------------------------------------------------------------------------

    def seed(self, rows: Sequence[int] | Rows, streams: Sequence[RowStreams]) -> None:
        """Sets the random streams of these rows, their only source of randomness."""
        self.data.seed(rows, streams)

    def read_task(self, given: Any, rows: Rows) -> Tasks:
        """Reads a user's tasks for these rows; see `TaskFamily.read_task`."""
        return self.data.read_task(given, rows)

    @own_state
    @torch.inference_mode()
    def reset(self, rows: Rows | None = None, given: Tasks | None = None) -> dict[str, Any]:
        """Starts new episodes in these rows.

        Args:
            rows: row numbers (int64), None for all.
            given: the rows' tasks, as returned by `read_task`; None for random ones.

        Returns:
            The info of all rows, with the same names as after a step: arrays (n, ...) and dicts of such arrays. Entries
            about the step itself are 0.
        """
        rows = self._every_row if rows is None else rows
        self.data.draw(rows, given)
        self.training.restart(rows)
        return self._begun(rows)

    @own_state
    @torch.inference_mode()
    def again(self) -> dict[str, Any]:
        """Starts new episodes in all rows as `reset` does, but on the tasks and the data that they have.

        Raises:
            ValueError: before the first reset, or data that are drawn during an episode: of policies, or minibatches.
        """
        if not self.data.tasks:
            raise ValueError("again: there are no data before the first reset")
        if not self.family.fixed_data:
            raise ValueError(f"family={self.family.name!r}: its data are drawn at every step; use reset")
        if self.batch_size is not None:
            raise ValueError(f"batch_size={self.batch_size!r}: minibatches are drawn at every step; use reset")
        self.training.restart(self._every_row, draw=False)
        return self._begun(self._every_row)

    def _begun(self, rows: Rows) -> dict[str, Any]:
        """What remains to be done when episodes begin in these rows; returns the info of all rows."""
        self._observation.restart(rows if len(rows) < self.count else slice(None))
        if self._history is not None:
            self._history.restart(rows)
        zeros = np.zeros(self.count)
        terms = {self.objective.reward: zeros.copy(), "divergence": zeros.copy()}
        no_sizes = zeros if self._single else np.zeros((self.count, self.decision.numbers))
        return self._info(zeros.astype(np.int64), no_sizes, diverged=zeros.astype(np.bool_), terms=terms)

    @own_state
    @torch.inference_mode()
    def draw(self) -> None:
        """Draws new tasks in all rows for `episodes`, as `reset` does, but computes neither losses nor observations.

        Call `reset` before the next step.
        """
        self.data.draw(self._every_row)
        self.training.begin(self._every_row)

    @own_state
    @torch.inference_mode()
    def observe(self) -> NDArray[np.float32]:
        """A new array with the observations of all rows, (n, observation_size)."""
        return self._observation.observe()

    @own_state
    @torch.inference_mode()
    def observe_tensor(self) -> Tensor:
        """The observations of all rows as a new tensor on the networks' device, (n, observation_size) float32."""
        return self._observation.observe_tensor()

    def allowed(self) -> Masks:
        """Masks of the allowed choices, here of layers (n, L + 1): all while a slot is empty, then only 0."""
        return (self._no_layer | (self.networks.depth < self.slots)[:, None],)

    @own_state
    @torch.inference_mode()
    def step(self, decided: Decided) -> Outcome:
        """Appends each row's layer, then takes a gradient step with the size at place `step_size` on the log range.

        A step is refused (undone) if the support loss after it is not finite, or above both the family's cap and the
        previous support loss, or if a weight is not finite. This does not depend on the query set, so observations
        never depend on held-out data. In rewards and infos the query loss is capped at the family's cap, or at its
        initial value in this episode if that is larger; a query loss that is not finite counts as this cap. With
        feedback "query", rows above the cap also get the penalty for divergence.

        Rows beyond their horizon continue and stay terminated.

        Args:
            decided: for each row a layer, and a place on the step range or one for each position.
        """
        count_work(environment_steps=self.count)
        training, objective = self.training, self.objective
        places = decided.numbers[:, 0] if self._single else np.ascontiguousarray(decided.numbers.T)
        step_sizes, scores = self.step_sizes(places), training.scores
        trained = self._train(decided.choices[:, 0], step_sizes)
        self._observation.remember(trained.gradient_norms, decided)
        scored = FEEDBACKS.index(objective.feedback)
        penalised = trained.diverged | training.query_diverged if objective.feedback == "query" else trained.diverged
        terms = objective.terms(scores[scored], training.scores[scored], self.clock, penalised)
        info = self._info(trained.layers, step_sizes.T.astype(np.float64), diverged=trained.diverged, terms=terms)
        reward = terms[objective.reward] + terms["divergence"]
        observation = self._observation.observe_tensor() if self.tensors else self._observation.observe()
        outcome = Outcome(observation, reward, self.clock >= objective.horizon, info)
        if self.learning and self._history is not None:
            with torch.inference_mode(False):
                self._history.hand_over(np.flatnonzero(self.clock == objective.horizon))
        return outcome

    @own_state
    @torch.inference_mode()
    def train(self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> Trained:
        """Only updates the networks: appends layers (n,) and takes a gradient step of these sizes.

        Args:
            layers: (n,).
            step_sizes: (n,), or (slots + 2, n) for one at each position.
        """
        return self._train(layers, step_sizes)

    def episodes(self, layers: Tensor, step_sizes: Tensor) -> Episodes:
        """Episodes on the present tasks, for a replay, with these layers and step sizes; see `Episodes`.

        With a `batch_size` every step has its own minibatches, the next ones of the rows.
        """
        minibatches = self.training.minibatches
        return Episodes(
            [self.support] if minibatches is None else [minibatches.draw() for _ in layers],
            [self.query],
            layers.to(self.pool.device),
            step_sizes.to(self.pool.device),
            initial_layers=self.initial_layers,
            slots=self.slots,
            clip=self.clip,
            optimizer=self.optimizer,
        )

    def _train(self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> Trained:
        trained = self.training.train(layers, step_sizes)
        if self.learning and self._history is not None:
            taken = np.where(trained.diverged, 0.0, step_sizes).astype(np.float32)
            self._history.record(trained.support, layers=trained.layers, step_sizes=taken)
        return trained

    def step_sizes(self, places: NDArray[np.float32]) -> NDArray[np.float32]:
        """Step sizes at these places in [-1, 1] on the logarithmic step range, float32."""
        low, high = map(math.log, self.step_range)
        with np.errstate(under="ignore"):  # step sizes too small for float32 become 0, here and in observations
            return np.exp(low + (places.astype(np.float64) + 1.0) * ((high - low) / 2.0)).astype(np.float32)

    @own_state
    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """Outputs of the current networks, (n, points, out_features), for any inputs (n, points, in_features).

        Kinds with batch statistics compute them over the given points, unless the pool has running statistics.
        """
        return self.training.outputs(inputs)

    def row_metrics(self, row: int) -> dict[str, float]:
        """The query metrics of one row's current network."""
        return {name: float(values[row]) for name, values in self.training.metrics.items()}

    def learn_by(self, learner: PoolLearner) -> None:
        """Passes finished episodes to `learner` from now on, except those that are running."""
        self.learner, self.learning = learner, True
        self._history = History(self.training, learner, horizon=self.objective.horizon)

    def restart_learning(self) -> None:
        """Restores the learner and the pool to their initial state; running episodes are not learned from."""
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

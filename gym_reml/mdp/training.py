"""The Markov decision process: n rows of a task, a sub-network and a clock; what agents see, earn, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.objective import FEEDBACKS, Objective
from gym_reml.mdp.process import Outcome
from gym_reml.networks.architecture import Trace
from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.networks.dense import mean_over_points
from gym_reml.networks.torch_state import own_state
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.pool.subnetworks import SubNetworks
from gym_reml.spaces import Decided, layer_and_step
from gym_reml.spaces.decision import Masks
from gym_reml.streams import RowStreams
from gym_reml.tasks.base import WEIGHTS, Batch, TaskFamily, Tasks

OBSERVATION_LIMIT = 20.0
# Scores now, at first, before the last step and before that one, to what is shown: now and three falls.
LOSS_PART = np.array([[1.0, -1.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])

Rows = NDArray[np.int64]
Array = NDArray[Any]


class TrainingMDP:
    """n independent episodes, each building and training one network for one task.

    Attributes:
        family, pool, objective, step_range: as given.
        decision: what is decided in a step: a "layer" and a "step_size".
        networks: the sub-networks.
        clock: (n,) int64, steps taken in the present episode.
        support_loss, query_loss: (n,) float64, of the present networks; the query loss as far as it counts, see `step`.
        query_diverged: (n,) bool, whose query loss is not finite or above the most that counts.
        learner: changes the pool by the episodes that end, or None.
        learning: whether it does so at present.
        parts: the observation's parts, each a slice of the flat observation.
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
        """Sets the rows up; `reset` must come before the first step.

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
        self._log_range = math.log(self.step_range[0]), math.log(self.step_range[1])
        self.learner = learner
        self.learning = learner is not None
        self.networks = SubNetworks(count, slots, pool)
        self.clock = np.zeros(count, dtype=np.int64)
        # Losses on support and query set, (2, n), and what rewards make of them.
        self._losses = self._scores = np.zeros((2, count))
        self.support_loss, self.query_loss = self._losses
        self.query_diverged = np.zeros(count, dtype=np.bool_)
        self._query_limit = np.full(count, np.inf)
        self._metrics: dict[str, Array] = {}
        self.tasks: Tasks = {}
        self._parameters: Tasks = {}
        self.support: Batch
        self.query: Batch
        self.streams: list[RowStreams] = []
        # For passes over all points, for those that an appended layer makes necessary on the support set, and for the
        # query set's where it has its own.
        self._workspaces = (Workspace(), Workspace(), Workspace())
        self._trace: Trace | None = None
        self._history: list[list[_Step]] = [[] for _ in range(count)]
        # How often the pool had been changed when the rows' episodes began.
        self._began = np.zeros(count, dtype=np.int64)
        self._make_parts()

    # -- what agents see ---------------------------------------------------------------------------------------------

    def _make_parts(self) -> None:
        head_gradient = (self.pool.width + 1) * (1 if self.family.exchangeable_outputs else self.pool.out_features)
        sizes = {
            "head_gradient": head_gradient,
            "activations": 2 * self.pool.width,
            "task": self.family.signal_size,
            "loss": 4,
            "gradient_norms": self.slots + 2,
            "progress": 2,
            "last_action": self.decision.size,
        }
        edges = np.cumsum([0, *sizes.values()])
        self.parts = {
            name: slice(int(start), int(stop)) for name, start, stop in zip(sizes, edges, edges[1:], strict=False)
        }
        self.observation_size = int(edges[-1])
        self._observation = np.zeros((self.count, self.observation_size), dtype=np.float32)
        self._past_scores = np.zeros((self.count, 4))
        self._every_row = np.arange(self.count)
        self._nothing = np.arange(self.pool.layers + 1) == 0

    @own_state
    @torch.inference_mode()
    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows, (n, observation_size), as a copy."""
        return self._observe()

    def _observe(self) -> NDArray[np.float32]:
        trace, by_output = self._present()
        observation, parts = self._observation, self.parts
        gradient = self.pool.architecture.head_gradient(trace, by_output)
        if self.family.exchangeable_outputs:
            gradient = torch.linalg.vector_norm(gradient, dim=2)
        # Not by var or vector_norm, which are tens of times slower over this dimension.
        features = trace.features
        weights = self.support.extras.get(WEIGHTS)
        mean = mean_over_points(features, weights)
        deviation = mean_over_points((features - mean).square_(), weights).sqrt_()
        shown = [gradient.flatten(1), mean.squeeze(1), deviation.squeeze(1)]
        if self.family.signal_size:
            shown.append(self.family.support_signal(trace.outputs, self.support))
        # These come first in the observation, in this order.
        observation[:, : parts["task"].stop] = torch.cat(shown, dim=1).cpu().numpy()
        with np.errstate(under="ignore", over="ignore"):  # clipped below
            observation[:, parts["loss"]] = self._past_scores.dot(LOSS_PART)
        progress = parts["progress"].start
        observation[:, progress] = self.networks.depth / self.slots
        # Past the horizon the clock stands at its last step, so that a policy keeps acting as it did there.
        observation[:, progress + 1] = np.minimum(self.clock, self.objective.horizon - 1) / self.objective.horizon
        clipped = np.minimum(np.maximum(observation, -OBSERVATION_LIMIT), OBSERVATION_LIMIT)
        # Nothing else is left that could make the sum not a number.
        return np.nan_to_num(clipped, copy=False) if math.isnan(np.add.reduce(clipped, axis=None)) else clipped

    def allowed(self) -> Masks:
        """Which options each row may take, of layers (n, L + 1): all while there is room, then only 0."""
        return (self._nothing | (self.networks.depth < self.slots)[:, None],)

    # -- episodes ----------------------------------------------------------------------------------------------------

    def seed(self, rows: Sequence[int] | Rows, streams: Sequence[RowStreams]) -> None:
        """Gives rows their random streams; everything these rows do follows from them."""
        if not self.streams:
            self.streams = list(streams)
        for row, stream in zip(rows, streams, strict=True):
            self.streams[row] = stream

    def read_task(self, given: Any, rows: Rows) -> Tasks:
        """The tasks that a user asks for in these rows; see `TaskFamily.read_task`."""
        return self.family.read_task(given, rows, self.count)

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
        generators = [self.streams[row].task for row in rows]
        tasks = self.family.draw(generators) if given is None else self.family.draw_given(given, generators)
        if len(rows) == self.count:
            self.tasks = tasks
        else:
            for name, values in tasks.items():
                self.tasks[name][rows] = values
        self.networks.restart(rows, self.initial_layers)
        self.clock[rows] = 0
        for row in rows:
            self._history[row] = []
        if self.learner is not None:
            self._began[rows] = self.learner.updates
        self._collect(rows, tasks)
        chosen = rows if len(rows) < self.count else slice(None)
        self._measure(finite=True, fresh=chosen)
        self._past_scores[chosen] = self._scores[0, chosen, None]
        for name in ("gradient_norms", "last_action"):
            self._observation[chosen, self.parts[name]] = 0.0
        # Copies, which infos share until the next reset: nothing writes into them.
        self._parameters = {name: values.copy() for name, values in self.family.task_parameters(self.tasks).items()}
        idle, zeros = np.zeros(self.count, dtype=np.bool_), np.zeros(self.count)
        return self._info(
            np.zeros(self.count, dtype=np.int64),
            zeros,
            idle,
            {self.objective.reward: zeros.copy(), "divergence": zeros.copy()},
        )

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
        step_sizes, scores = self.step_sizes(decided.numbers[:, 0]), self._scores
        appended, diverged, norms = self._train(decided.choices[:, 0], step_sizes)
        self._remember(norms, decided)
        judged = FEEDBACKS.index(self.objective.feedback)
        lost = diverged | self.query_diverged if self.objective.feedback == "query" else diverged
        terms = self.objective.terms(scores[judged], self._scores[judged], self.clock, lost)
        info = self._info(appended, step_sizes.astype(np.float64), diverged, terms)
        reward = terms[self.objective.reward] + terms["divergence"]
        outcome = Outcome(self._observe(), reward, self.clock >= self.objective.horizon, info)
        if self.learning:
            with torch.inference_mode(False):
                self._learn(np.flatnonzero(self.clock == self.objective.horizon))
        return outcome

    @own_state
    @torch.inference_mode()
    def train(
        self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], Tensor]:
        """What a step does to the networks: append, descend, measure; take back what diverged.

        Returns:
            The layers that were appended (n,), whose step was refused (n,), and the gradients' norms (slots + 2, n).
        """
        return self._train(layers, step_sizes)

    def _train(
        self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], Tensor]:
        networks, before, support_loss = self.networks, (self.support, self.query), self.support_loss
        depth = networks.depth.copy()
        trace, by_output = self._present()
        appended, changed = networks.append(layers)
        if changed <= self.slots:
            trace = networks.forward(
                self._prepared, self._workspaces[1], trace=trace, start=changed, norms=networks.norms(self.clock)
            )
            by_output = self._output_gradient(trace)
        norms = networks.descend(trace, by_output, step_sizes=step_sizes, clock=self.clock)
        self.clock += 1
        if not self.family.fixed_data:
            self._collect(self._every_row, self.tasks)
        self._measure()
        # Whatever is not a number fails this comparison too.
        diverged = ~(self.support_loss <= np.maximum(support_loss, self.family.cap))
        if networks.broken is not None:
            diverged |= networks.broken
        if np.count_nonzero(diverged):
            # These steps are taken back: networks, and so losses (but for norms of the next step), are what they were.
            rows = np.flatnonzero(diverged)
            networks.take_back(rows, depth[diverged])
            if not self.family.fixed_data:
                self._put_back(rows, before)
            self._measure(finite=True)
            appended[diverged] = 0
        if self.learning:
            # What was descended on, and what the result is judged by.
            self._record((before[0], self.query), appended, np.where(diverged, 0.0, step_sizes).astype(np.float32))
        return appended, diverged, norms

    def step_sizes(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Step sizes at these places, in [-1, 1], of the logarithmic range."""
        low, high = self._log_range
        with np.errstate(under="ignore"):  # what is too small for float32 becomes 0, here and in observations
            return np.exp(low + (steps.astype(np.float64) + 1.0) * ((high - low) / 2.0)).astype(np.float32)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _collect(self, rows: Rows, tasks: Tasks) -> None:
        """Draws support and query data for these rows, as tensors that autograd accepts in a replay."""
        with torch.inference_mode(False), torch.no_grad():
            batches: list[Batch] = []
            everyone, index = len(rows) == self.count, torch.from_numpy(rows).to(self.pool.device)
            forward = self._outputs if everyone else partial(self._outputs_of, index)
            for part in ("support", "query"):
                generators = [getattr(self.streams[row], part) for row in rows]
                batch: Batch = getattr(self.family, part)(tasks, forward, generators)
                batches.append(batch.to(self.pool.device, self.pool.dtype))
            if everyone:
                self.support, self.query = batches
            self._replace(index, () if everyone else batches)

    def _put_back(self, rows: Rows, data: Sequence[Batch]) -> None:
        """Gives these rows the support and query data back that they had."""
        with torch.inference_mode(False), torch.no_grad():
            index = torch.from_numpy(rows).to(self.pool.device)
            self._replace(index, [batch.rows(index) for batch in data])

    def _replace(self, rows: Tensor, data: Sequence[Batch]) -> None:
        for batch, other in zip((self.support, self.query), data, strict=False):
            batch.assign(rows, other)
        self._prepared = BiasedInputs(self.networks.prepare(torch.cat([self.support.inputs, self.query.inputs], dim=1)))

    def row_metrics(self, row: int) -> dict[str, float]:
        """The query metrics of one row's present network."""
        return {name: float(values[row]) for name, values in self._metrics.items()}

    @own_state
    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """The present networks' outputs at any inputs (n, points, in_features).

        Kinds that look across points take these for all the points there are, unless the pool has running statistics.
        """
        return self._outputs(inputs)

    def _outputs(self, inputs: Tensor) -> Tensor:
        prepared = self.networks.prepare(inputs.to(self.pool.device))
        return self.networks.forward(prepared, norms=self.networks.norms(self.clock - 1)).outputs

    def _outputs_of(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """Those of some networks (int64) at inputs of their own, (rows, points, in_features)."""
        everyones = inputs.new_zeros(self.count, *inputs.shape[1:])
        everyones[rows.to(inputs.device)] = inputs
        return self._outputs(everyones)[rows]

    def _present(self) -> tuple[Trace, Tensor]:
        """The support set's pass through the present networks, and the derivatives of the losses by its outputs."""
        if self._trace is None:
            self._measure(finite=True)
        assert self._trace is not None
        return self._trace, self._by_output

    def _measure(self, finite: bool = False, fresh: Rows | slice | None = None) -> None:
        """Runs the present networks: trace, losses, scores and metrics.

        Args:
            finite: whether support losses that are not finite, although nothing is left to be refused, become the cap.
            fresh: rows whose episode begins: their query losses say how much counts from now on.
        """
        networks, workspace, points = self.networks, self._workspaces[0], self.support.inputs.shape[1]
        if self.pool.architecture.across_points:
            support, query = self._prepared.first(points), self._prepared.rest(points)
            # The support set's pass belongs to the step to come, the query set's to the one that is over.
            self._trace = networks.forward(support, workspace, norms=networks.norms(self.clock))
            query_outputs = networks.forward(query, self._workspaces[2], norms=networks.norms(self.clock - 1)).outputs
        else:
            everything = networks.forward(self._prepared, workspace)
            self._trace = everything.first(points, workspace)
            query_outputs = workspace.views(everything.outputs).rest(points).tensor
        self._by_output = self._output_gradient(self._trace)
        losses = torch.stack(
            [self.family.loss(self._trace.outputs, self.support), self.family.loss(query_outputs, self.query)]
        )
        cap, query_loss = self.family.cap, losses[1]
        self._losses = losses.cpu().numpy().astype(np.float64)
        self.support_loss, self.query_loss = self._losses
        if finite:
            np.nan_to_num(self.support_loss, copy=False, nan=cap, posinf=cap, neginf=-cap)
        if fresh is not None:
            start = np.nan_to_num(self.query_loss[fresh], nan=cap, posinf=cap, neginf=cap)
            self._query_limit[fresh] = np.maximum(start, cap)
        self.query_diverged = ~((self.query_loss <= self._query_limit) & (self.query_loss > -np.inf))
        if np.count_nonzero(self.query_diverged):
            self.query_loss[self.query_diverged] = self._query_limit[self.query_diverged]
            query_loss = torch.from_numpy(self.query_loss).to(losses)
        metrics = self.family.metrics(query_outputs, self.query, query_loss)
        self._scores = self.family.score(torch.from_numpy(self._losses)).numpy()
        self._metrics = {
            # Where it is the loss itself, as in regression, that is here already.
            name: self.query_loss if values is query_loss else values.cpu().numpy().astype(np.float64)
            for name, values in metrics.items()
        }

    def _output_gradient(self, trace: Trace) -> Tensor:
        return self.family.output_gradient(trace.outputs, self.support).to(trace.outputs.dtype)

    def _remember(self, norms: Tensor, decided: Decided) -> None:
        """Moves the parts of the observation that look back."""
        self._past_scores[:, 3] = self._past_scores[:, 2]
        self._past_scores[:, 2] = self._past_scores[:, 0]
        self._past_scores[:, 0] = self._scores[0]
        with np.errstate(under="ignore"):
            self._observation[:, self.parts["gradient_norms"]] = np.log1p(norms.cpu().numpy().T)
        self.decision.flatten(decided, self._observation[:, self.parts["last_action"]])

    def _info(self, layer: Rows, step_size: Array, diverged: Array, terms: dict[str, Array]) -> dict[str, Any]:
        return {
            "support_loss": self.support_loss.copy(),
            "query_loss": self.query_loss.copy(),
            "depth": self.networks.depth.copy(),
            **{f"query_{name}": values.copy() for name, values in self._metrics.items()},
            "layer": layer,
            "step_size": step_size,
            "diverged": diverged,
            "reward_terms": terms,
            "task": dict(self._parameters),
        }

    def _record(self, data: tuple[Batch, Batch], layers: Rows, step_sizes: NDArray[np.float32]) -> None:
        for row in range(self.count):
            if self.clock[row] <= self.objective.horizon:
                self._history[row].append(_Step(data, int(layers[row]), float(step_sizes[row])))

    def restart_learning(self) -> None:
        """The learner starts over, with the pool that it was made with; running episodes are not learned from."""
        if self.learner is not None:
            self.learner.restart()
            self._history = [[] for _ in range(self.count)]

    def _learn(self, rows: Rows) -> None:
        """Hands the episodes that ended in these rows to the learner."""
        assert self.learner is not None
        rows = np.array([row for row in rows if len(self._history[row]) == self.objective.horizon], dtype=np.int64)
        if not self.family.fixed_data:
            # Their data were collected by networks of the pool as it was then.
            present = self._began[rows] == self.learner.updates
            self.learner.leave_out(int(np.count_nonzero(~present)))
            rows = rows[present]
        if not len(rows):
            return
        device = self.pool.device
        index = torch.from_numpy(rows).to(device)
        history = [self._history[row] for row in rows]
        if self.family.fixed_data:
            support, query = [self.support.rows(index)], [self.query.rows(index)]
        else:
            support, query = (
                [
                    Batch.concatenate([steps[t].data[part].rows(index[[i]]) for i, steps in enumerate(history)])
                    for t in range(self.objective.horizon)
                ]
                for part in (0, 1)
            )
        layers = torch.tensor([[step.layer for step in steps] for steps in history], dtype=torch.int64).T
        step_sizes = torch.tensor([[step.step_size for step in steps] for steps in history], dtype=torch.float32).T
        shown = layers.to(device), step_sizes.to(device)
        self.learner.add(Episodes(support, query, *shown, self.initial_layers, self.slots))

    def __getstate__(self) -> dict[str, Any]:
        # The trace points into workspaces, which copies do not take along; it is computed again when it is missing.
        return self.__dict__ | {"_trace": None}


class _Step(NamedTuple):
    """One step of one row, for the replay."""

    data: tuple[Batch, Batch]
    layer: int
    step_size: float

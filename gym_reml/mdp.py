"""The Markov decision process: n rows of a task, a sub-network and a clock; what agents see, earn, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.learning import Episodes, PoolLearner
from gym_reml.network import Trace, Workspace, by_head
from gym_reml.pool import LayerPool
from gym_reml.streams import RowStreams
from gym_reml.subnetworks import SubNetworks
from gym_reml.tasks.base import Batch, TaskFamily, Tasks

REWARDS = ("performance", "improvement")
FEEDBACKS = ("query", "support")
OBSERVATION_LIMIT = 20.0
# Scores now, at first, before the last step and before that one, to what is shown: now and three falls.
LOSS_PART = np.array([[1.0, -1.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])

Rows = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True)
class Objective:
    """What an episode is worth: the meta-RL objective over H steps, of which the first K earn nothing.

    Attributes:
        horizon: H, steps of an episode.
        burn_in: K, steps that earn nothing.
        reward: "performance" pays -score / H at every step (the return is the area under the adaptation curve),
            "improvement" pays the fall of the score (the return is the final gain).
        feedback: whether the score is of the loss on the query or on the support set.
    """

    horizon: int
    burn_in: int = 0
    reward: str = "performance"
    feedback: str = "query"

    def __post_init__(self) -> None:
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, int | np.integer) or self.horizon < 1:
            raise ValueError(f"horizon={self.horizon!r}: must be a positive integer")
        if not isinstance(self.burn_in, int | np.integer) or not 0 <= self.burn_in < self.horizon:
            raise ValueError(f"burn_in={self.burn_in!r}: must be an integer from 0 to below horizon={self.horizon}")
        if self.reward not in REWARDS:
            raise ValueError(f"reward={self.reward!r}: must be one of {', '.join(map(repr, REWARDS))}")
        if self.feedback not in FEEDBACKS:
            raise ValueError(f"feedback={self.feedback!r}: must be one of {', '.join(map(repr, FEEDBACKS))}")

    def terms(self, before: Array, after: Array, clock: Array, diverged: Array) -> dict[str, Array]:
        """The reward's terms by name, each (n,): scores before and after the step that ended at `clock`."""
        earned = -after / self.horizon if self.reward == "performance" else before - after
        counts = clock > self.burn_in
        return {
            self.reward: np.where(counts, earned, 0.0),
            "divergence": np.where(counts & diverged, -1.0 / self.horizon, 0.0),
        }


@dataclass
class Outcome:
    """What one step brought, n rows.

    Attributes:
        observation: (n, size) float32.
        reward: (n,) float64.
        terminated: (n,) bool.
        info: arrays of n by name, and "reward_terms", a dict of such.
    """

    observation: NDArray[np.float32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    info: dict[str, Any]


class TrainingMDP:
    """n independent episodes, each building and training one network for one task.

    Attributes:
        family, pool, objective, step_range: as given.
        networks: the sub-networks.
        clock: (n,) int64, steps taken in the present episode.
        support_loss, query_loss: (n,) float64, of the present networks.
        learner: changes the pool by the episodes that end, or None.
        learning: whether it does so at present.
        parts: the observation's parts, each a slice of the flat observation.
    """

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
        """Sets the rows up; `reset` must come before the first step."""
        self.count, self.family, self.pool, self.objective = count, family, pool, objective
        self.slots, self.initial_layers = slots, tuple(initial_layers)
        self.step_range = step_range or pool.step_range
        self.learner = learner
        self.learning = learner is not None
        self.networks = SubNetworks(count, slots, pool)
        self.clock = np.zeros(count, dtype=np.int64)
        self.support_loss = np.zeros(count)
        self.query_loss = np.zeros(count)
        self._metrics: dict[str, Tensor] = {}
        self.tasks: Tasks = {}
        self.support: Batch
        self.query: Batch
        self.streams: list[RowStreams] = []
        # One for passes over all points, one for those that an appended layer makes necessary on the support set.
        self._workspaces = (Workspace(), Workspace())
        self._trace: Trace | None = None
        self._history: list[list[_Step]] = [[] for _ in range(count)]
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
            "last_action": self.pool.layers + 2,
        }
        edges = np.cumsum([0, *sizes.values()])
        self.parts = {
            name: slice(int(start), int(stop)) for name, start, stop in zip(sizes, edges, edges[1:], strict=False)
        }
        self.observation_size = int(edges[-1])
        self._observation = np.zeros((self.count, self.observation_size), dtype=np.float32)
        self._scores = np.zeros((self.count, 4))

    def observe(self) -> NDArray[np.float32]:
        """The observations of all rows, (n, observation_size), as a copy."""
        assert self._trace is not None
        observation, parts, trace = self._observation, self.parts, self._trace
        gradient = by_head(trace, self.family.output_gradient(trace.outputs, self.support))
        if self.family.exchangeable_outputs:
            gradient = torch.linalg.vector_norm(gradient, dim=2)
        observation[:, parts["head_gradient"]] = gradient.flatten(1).cpu().numpy()
        features, share = trace.features, 1.0 / trace.features.shape[1]
        mean = features.sum(dim=1) * share
        deviation = torch.linalg.vector_norm(features - mean.unsqueeze(1), dim=1) * share**0.5
        observation[:, parts["activations"]] = torch.cat([mean, deviation], dim=1).cpu().numpy()
        if self.family.signal_size:
            observation[:, parts["task"]] = self.family.support_signal(trace.outputs, self.support).cpu().numpy()
        observation[:, parts["loss"]] = self._scores @ LOSS_PART
        progress = observation[:, parts["progress"]]
        progress[:, 0] = self.networks.depth / self.slots
        # Past the horizon the clock stands at its last step, so that a policy keeps acting as it did there.
        progress[:, 1] = np.minimum(self.clock, self.objective.horizon - 1) / self.objective.horizon
        if not np.isfinite(observation.sum()):
            np.nan_to_num(observation, copy=False)
        return np.clip(observation, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    def allowed(self) -> NDArray[np.bool_]:
        """Which layers each row may pick, (n, L + 1): all while there is room, then only 0."""
        allowed = np.ones((self.count, self.pool.layers + 1), dtype=np.bool_)
        allowed[self.networks.depth >= self.slots, 1:] = False
        return allowed

    # -- episodes ----------------------------------------------------------------------------------------------------

    def seed(self, rows: Sequence[int] | Rows, streams: Sequence[RowStreams]) -> None:
        """Gives rows their random streams; everything these rows do follows from them."""
        if not self.streams:
            self.streams = list(streams)
            assert len(self.streams) == self.count
        for row, stream in zip(rows, streams, strict=True):
            self.streams[row] = stream

    @torch.no_grad()
    def reset(self, rows: Rows | None = None) -> dict[str, Any]:
        """Draws new tasks and starts new episodes in these rows (None: all).

        Returns:
            info, arrays of n by name ("task" an object array that is None in other rows).
        """
        rows = np.arange(self.count) if rows is None else rows
        whole = len(rows) == self.count
        tasks = self.family.draw([self.streams[row].task for row in rows])
        if whole or not self.tasks:
            assert whole
            self.tasks = tasks
        else:
            for name, values in tasks.items():
                self.tasks[name][rows] = values
        self.networks.restart(rows, self.initial_layers)
        self.clock[rows] = 0
        for row in rows:
            self._history[row] = []
        self._collect(rows, tasks)
        self._measure()
        score = self._score("support")[rows]
        self._scores[rows] = score[:, None]
        for name in ("gradient_norms", "last_action"):
            self._observation[rows, self.parts[name]] = 0.0
        info = self._info()
        info["task"] = np.full(self.count, None, dtype=object)
        for position, row in enumerate(rows):
            info["task"][row] = self.family.describe(tasks, position)
        return info

    @torch.no_grad()
    def step(self, layers: NDArray[np.int64], steps: NDArray[np.float32]) -> Outcome:
        """Appends `layers` (n,), then takes gradient steps whose sizes lie at `steps` (n,) in [-1, 1] on the log range.

        Rows past their horizon go on all the same, and stay terminated.
        """
        networks = self.networks
        step_sizes = self.step_sizes(steps)
        depth = networks.depth.copy()
        changed = networks.append(layers)
        appended = np.where(networks.depth > depth, layers, 0)
        if self._trace is None:
            self._measure()
        trace = self._trace
        assert trace is not None
        if changed <= self.slots:
            trace = networks.forward(trace.inputs[0], self._workspaces[1], trace, changed)
        by_output = self.family.output_gradient(trace.outputs, self.support)
        norms = networks.descend(trace, by_output, step_sizes, self.clock)
        data = (self.support, self.query)
        if not self.family.fixed_data:
            self._collect(np.arange(self.count), self.tasks)
        before = {"support": self.support_loss, "query": self.query_loss}
        score_before = self._score(self.objective.feedback)
        worst = np.maximum(self.family.cap, np.maximum(self.support_loss, self.query_loss))
        self._measure()
        diverged = ~(np.maximum(self._raw["support"], self._raw["query"]) <= worst)
        if diverged.any():
            self._refuse(np.flatnonzero(diverged), depth, before)
            appended[diverged] = 0
        self.clock += 1
        if self.learning:
            self._record(data, appended, np.where(diverged, 0.0, step_sizes).astype(np.float32))
        self._remember(norms, layers, steps)
        terms = self.objective.terms(score_before, self._score(self.objective.feedback), self.clock, diverged)
        terminated = self.clock >= self.objective.horizon
        info = self._info() | {
            "layer": appended,
            "step_size": step_sizes.astype(np.float64),
            "diverged": diverged,
            "reward_terms": terms,
        }
        outcome = Outcome(self.observe(), sum(terms.values(), np.zeros(self.count)), terminated, info)
        if self.learning:
            self._learn(np.flatnonzero(self.clock == self.objective.horizon))
        return outcome

    def step_sizes(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Step sizes at these places, in [-1, 1], of the logarithmic range."""
        low, high = np.log(self.step_range)
        return np.exp(low + (steps.astype(np.float64) + 1.0) / 2.0 * (high - low)).astype(np.float32)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _collect(self, rows: Rows, tasks: Tasks) -> None:
        """Draws support and query data for these rows."""
        device, whole = self.pool.device, len(rows) == self.count
        batches = {}
        for part in ("support", "query"):
            generators = [getattr(self.streams[row], part) for row in rows]
            collect = getattr(self.family, part)
            batches[part] = collect(tasks, self.outputs, generators).map(lambda tensor: tensor.to(device))
        if whole:
            self.support, self.query = batches["support"], batches["query"]
        else:
            index = torch.from_numpy(rows).to(device)
            self.support.assign(index, batches["support"])
            self.query.assign(index, batches["query"])
        self._prepared = self.networks.prepare(torch.cat([self.support.inputs, self.query.inputs], dim=1))

    def row_metrics(self, row: int) -> dict[str, float]:
        """The query metrics of one row's present network."""
        return {name: float(values[row]) for name, values in self._metrics.items()}

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """The present networks' outputs at any inputs (n, points, in_features)."""
        return self.networks.forward(self.networks.prepare(inputs.to(self.pool.device)), Workspace()).outputs

    def _measure(self) -> None:
        """Losses and metrics of the present networks, all finite; `_raw` has the losses as they are."""
        everything, points = self.networks.forward(self._prepared, self._workspaces[0]), self.support.inputs.shape[1]
        self._trace = everything.first(points)
        query_outputs = everything.outputs[:, points:]
        support_loss = self.family.loss(self._trace.outputs, self.support)
        query_loss = self.family.loss(query_outputs, self.query)
        self._metrics = self.family.metrics(query_outputs, self.query, query_loss)
        self._raw = {
            "support": support_loss.cpu().numpy().astype(np.float64),
            "query": query_loss.cpu().numpy().astype(np.float64),
        }
        cap = self.family.cap
        self.support_loss, self.query_loss = (
            loss if np.isfinite(loss.sum()) else np.nan_to_num(loss, nan=cap, posinf=cap, neginf=-cap)
            for loss in self._raw.values()
        )

    def _refuse(self, rows: Rows, depth: Rows, before: dict[str, Array]) -> None:
        """Takes the step of these rows back: network and losses are what they were."""
        self.networks.take_back(rows, depth[rows])
        self._measure()
        for part, values in (("support", self.support_loss), ("query", self.query_loss)):
            if self.family.fixed_data:
                values[rows] = before[part][rows]

    def _score(self, part: str) -> Array:
        loss = self.support_loss if part == "support" else self.query_loss
        return self.family.score(torch.from_numpy(loss)).numpy()

    def _remember(self, norms: Tensor, layers: Rows, steps: NDArray[np.float32]) -> None:
        """Moves the parts of the observation that look back."""
        self._scores[:, 3] = self._scores[:, 2]
        self._scores[:, 2] = self._scores[:, 0]
        self._scores[:, 0] = self._score("support")
        self._observation[:, self.parts["gradient_norms"]] = torch.log1p(norms).T.cpu().numpy()
        action = self._observation[:, self.parts["last_action"]]
        action[:] = 0.0
        action[np.arange(self.count), layers] = 1.0
        action[:, -1] = steps

    def _info(self) -> dict[str, Any]:
        return {
            "support_loss": self.support_loss.copy(),
            "query_loss": self.query_loss.copy(),
            "depth": self.networks.depth.copy(),
            **{f"query_{name}": values.cpu().numpy().astype(np.float64) for name, values in self._metrics.items()},
        }

    def _record(self, data: tuple[Batch, Batch], layers: Rows, step_sizes: NDArray[np.float32]) -> None:
        for row in range(self.count):
            if self.clock[row] <= self.objective.horizon:
                self._history[row].append(_Step(data, int(layers[row]), float(step_sizes[row])))

    def _learn(self, rows: Rows) -> None:
        """Hands the episodes that ended in these rows to the learner."""
        rows = np.array([row for row in rows if len(self._history[row]) == self.objective.horizon], dtype=np.int64)
        if not len(rows):
            return
        device = self.pool.device
        index = torch.from_numpy(rows).to(device)
        history = [self._history[row] for row in rows]
        if self.family.fixed_data:
            support, query = [self.support.rows(index)], [self.query.rows(index)]
        else:
            moments = range(self.objective.horizon)
            support, query = (
                [
                    Batch.concatenate([history[i][t].data[part].rows(index[i : i + 1]) for i in range(len(rows))])
                    for t in moments
                ]
                for part in (0, 1)
            )
        layers = torch.tensor([[step.layer for step in steps] for steps in history], device=device).T
        step_sizes = torch.tensor([[step.step_size for step in steps] for steps in history], device=device).T
        assert self.learner is not None
        self.learner.add(Episodes(support, query, layers, step_sizes, self.initial_layers, self.slots))

    def __getstate__(self) -> dict[str, Any]:
        # The trace points into workspaces, which copies do not take along; a step computes it again when it is missing.
        return self.__dict__ | {"_trace": None}


@dataclass(frozen=True)
class _Step:
    """One step of one row, for the replay."""

    data: tuple[Batch, Batch]
    layer: int
    step_size: float

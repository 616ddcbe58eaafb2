"""Training of n networks: they grow, take gradient steps on their support sets, and are evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.mdp.minibatches import Minibatches
from gym_reml.mdp.task_data import TaskData
from gym_reml.networks.architecture import Trace
from gym_reml.networks.arrays import Squares
from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.pool.subnetworks import SubNetworks
from gym_reml.tasks.base import Batch

Rows = NDArray[np.int64]


class Trained(NamedTuple):
    """Results of a step.

    Attributes:
        layers: (n,) int64, the pool layers appended, 0 for none.
        diverged: (n,) bool, rows whose step was refused.
        gradient_norms: (slots + 2, n), norms of the gradients by position, before clipping.
        support: what the gradients were taken on, support sets or minibatches of them.
    """

    layers: NDArray[np.int64]
    diverged: NDArray[np.bool_]
    gradient_norms: Tensor
    support: Batch


class NetworkTraining:
    """n networks, each trained on the support set of its own task, or on minibatches of it.

    Attributes:
        data: the tasks and their support and query sets.
        family, pool, initial_layers: as given.
        networks: the sub-networks.
        minibatches: of the support sets, for gradient steps; None if they are taken on whole sets.
        clock: (n,) int64, number of steps taken in the current episode.
        support_loss, query_loss: (n,) float64, losses of the current networks; the query loss is capped as described in
            `TrainingMDP.step`.
        query_diverged: (n,) bool, rows whose query loss is not finite or above that cap.
        scores: (2, n) float64, support and query losses on the scale of rewards and observations (`TaskFamily.score`).
        metrics: the family's metrics on the query sets by name, (n,) float64.
    """

    def __init__(
        self,
        data: TaskData,
        pool: LayerPool,
        *,
        slots: int,
        initial_layers: Sequence[int],
        clip: float | None,
        optimizer: str,
        batch_size: int | None,
        core: str,
    ) -> None:
        """Allocates the networks; `restart` initialises them."""
        count = data.count
        self.data, self.family, self.pool = data, data.family, pool
        self.initial_layers = initial_layers
        self.networks = SubNetworks(count, pool, slots=slots, clip=clip, optimizer=optimizer, core=core)
        self.minibatches = None if batch_size is None else Minibatches(data, batch_size)
        self.clock = np.zeros(count, dtype=np.int64)
        self.support_loss, self.query_loss = self.scores = np.zeros((2, count))
        self.query_diverged = np.zeros(count, dtype=np.bool_)
        self.metrics: dict[str, NDArray[Any]] = {}
        self._query_limit = np.full(count, np.inf)
        # For passes over all points, over the support set after a layer was appended, and over the query set alone.
        self._workspaces = (Workspace(), Workspace(), Workspace())
        self._every_row = np.arange(count)
        self._prepared = BiasedInputs(self.networks.prepare(data.inputs()))
        # Of the current networks: passes over all points and over the support sets, and outputs on the query sets.
        self._passes: tuple[Any, Trace, Tensor] | None = None
        self._output_gradient = torch.zeros(0)
        # Whether compiled loops may do all of a step, as far as networks and data are concerned.
        self._as_one = self.networks.plain and self.family.fixed_data and self.minibatches is None
        # Of squared errors that compiled loops find: arrays, and gradient and losses as tensors that share memory.
        self._squares: tuple[Squares, Tensor, Tensor] | None = None

    def restart(self, rows: Rows, *, draw: bool = True) -> None:
        """Resets the networks of these rows to the pool's initial weights, and evaluates them.

        Args:
            rows: row numbers (int64).
            draw: collect data of their new tasks; else they keep those that they have.
        """
        self.begin(rows, draw=draw)
        self._measure(finite=True, fresh=rows if len(rows) < len(self.clock) else slice(None))

    def begin(self, rows: Rows, *, draw: bool = True) -> None:
        """Resets the networks of these rows to the pool's initial weights; arguments as of `restart`."""
        self.networks.restart(rows, self.initial_layers)
        self.clock[rows] = 0
        if draw:
            self._collect(rows)
        if self.minibatches is not None:
            self.minibatches.restart(rows)

    def train(self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> Trained:
        """Appends layers (n,), takes a gradient step of these sizes, evaluates, and undoes diverged steps.

        The step sizes are (n,), or (slots + 2, n) for one at each position.
        """
        trace, output_gradient = self.support_pass()
        if self._as_one and self._squares is not None:
            return self._train_as_one(layers, step_sizes, self._squares[0])
        networks, data, support_loss = self.networks, self.data, self.support_loss
        before, depth = (data.support, data.query), networks.depth.copy()
        appended, changed = networks.append(layers)
        if self.minibatches is None:
            batch = data.support
            if changed <= networks.slots:
                inputs, norms = self._prepared.first(batch.inputs.shape[1]), networks.norms(self.clock)
                trace = networks.forward(inputs, self._workspaces[1], trace=trace, start=changed, norms=norms)
                output_gradient = self._differentiate(trace, batch)
        else:
            batch = self.minibatches.draw()
            norms = networks.norms(self.clock)
            trace = networks.forward(networks.prepare(batch.inputs), self._workspaces[1], norms=norms)
            output_gradient = self._differentiate(trace, batch)
        gradient_norms = networks.descend(trace, output_gradient, step_sizes=step_sizes, clock=self.clock)
        self.clock += 1
        if not self.family.fixed_data:
            self._collect(self._every_row)
        self._measure()
        # NaN fails this comparison, too.
        diverged = ~(self.support_loss <= np.maximum(support_loss, self.family.cap))
        if networks.broken is not None:
            diverged |= networks.broken
        if np.count_nonzero(diverged):
            # Undo these steps: networks, and so losses (except with norms for each step), are restored.
            rows = np.flatnonzero(diverged)
            networks.take_back(rows, depth[diverged])
            if not self.family.fixed_data:
                data.put_back(rows, before)
                self._prepare()
            self._measure(finite=True)
            appended[diverged] = 0
        return Trained(appended, diverged, gradient_norms, batch)

    def _train_as_one(self, layers: NDArray[np.int64], step_sizes: NDArray[np.float32], squares: Squares) -> Trained:
        """`train` by compiled loops that do all of it, network by network."""
        assert self._passes is not None
        limits = np.maximum(self.support_loss, self.family.cap)
        appended, gradient_norms, diverged = self.networks.step(layers, self._passes[0], squares, step_sizes, limits)
        self.clock += 1
        self._measure(finite=bool(np.count_nonzero(diverged)), passed=True)
        return Trained(appended, diverged, gradient_norms, self.data.support)

    def support_pass(self) -> tuple[Trace, Tensor]:
        """Forward pass over the support sets, and the gradients of the support losses with respect to its outputs."""
        if self._passes is None:
            self._measure(finite=True)
        assert self._passes is not None
        return self._passes[1], self._output_gradient

    def outputs(self, inputs: Tensor) -> Tensor:
        """Outputs of the current networks, (n, points, out_features), for inputs (n, points, in_features)."""
        prepared = self.networks.prepare(inputs.to(self.pool.device))
        return self.networks.forward(prepared, norms=self.networks.norms(self.clock - 1)).outputs

    def _collect(self, rows: Rows) -> None:
        self.data.collect(rows, self._outputs_of)
        self._prepare()

    def _prepare(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._prepared = BiasedInputs(self.networks.prepare(self.data.inputs()))

    def _outputs_of(self, rows: Tensor | None, inputs: Tensor) -> Tensor:
        """Outputs of the networks of `rows` (int64; None for all) for their inputs (rows, points, in_features)."""
        if rows is None:
            return self.outputs(inputs)
        padded = inputs.new_zeros(len(self.clock), *inputs.shape[1:])
        padded[rows.to(inputs.device)] = inputs
        return self.outputs(padded)[rows]

    def _pass(self) -> tuple[Any, Trace, Tensor]:
        """Passes of the current networks: over all points and over the support sets, and outputs on the query sets."""
        networks, workspace, inputs = self.networks, self._workspaces[0], self._prepared
        points = self.data.support.inputs.shape[1]
        if self.pool.architecture.across_points:
            # The pass over the support set belongs to the next step, that over the query set to the last.
            now, last = networks.norms(self.clock), networks.norms(self.clock - 1)
            trace = networks.forward(inputs.first(points), workspace, norms=now)
            query_trace = networks.forward(inputs.rest(points), self._workspaces[2], norms=last, kept=0)
            return trace, trace, query_trace.outputs
        trace = networks.forward(inputs, workspace, kept=points)
        return trace, trace.first(points, workspace), workspace.views(trace.outputs).rest(points).tensor

    def _find_squares(self, outputs: Tensor, query_outputs: Tensor) -> tuple[Squares, Tensor, Tensor] | None:
        """What compiled loops find losses from, if losses of these outputs are squared errors: see `_squares`."""
        if not self.networks.compiled:
            return None
        targets = self.family.squared_targets(self.data.support), self.family.squared_targets(self.data.query)
        for aims, found in zip(targets, (outputs, query_outputs), strict=True):
            # Compiled loops look at no shape, and do not broadcast.
            if aims is None or aims.shape != found.shape or aims.dtype != found.dtype:
                return None
        gradient, losses = self._workspaces[0].keep(
            "squares", outputs.shape, lambda: (outputs.new_empty(outputs.shape), outputs.new_empty(2, len(outputs)))
        )
        arrays = (tensor.numpy() for tensor in (*targets, gradient, losses) if tensor is not None)
        return Squares(*arrays), gradient, losses

    def _measure(self, *, finite: bool = False, fresh: Rows | slice | None = None, passed: bool = False) -> None:
        """Evaluates the current networks: losses, scores and metrics.

        Args:
            finite: replace support losses that are not finite by the family's cap, where there is no step to refuse.
            fresh: rows whose episode begins: their query losses determine the limit of later query losses.
            passed: a step has made the passes of the networks before those of the current ones.
        """
        family, support, query = self.family, self.data.support, self.data.query
        if not passed or self._passes is None:
            self._passes = self._pass()
            self._squares = self._find_squares(self._passes[1].outputs, self._passes[2])
        _, trace, query_outputs = self._passes
        if self._squares is None:
            self._output_gradient = self._differentiate(trace, support)
            both = torch.stack([family.loss(trace.outputs, support), family.loss(query_outputs, query)])
            found, query_loss = both.cpu().numpy(), both[1]
        else:
            squares, self._output_gradient, both = self._squares
            if not passed:
                self.networks.squared_errors(trace.outputs, query_outputs, squares)
            found, query_loss = squares.losses, both[1]
        losses, cap = found.astype(np.float64), family.cap
        self.support_loss, self.query_loss = losses
        if finite:
            _replace(self.support_loss, cap, least=-cap)
        if fresh is not None:
            start = _replace(self.query_loss[fresh].copy(), cap, least=cap)
            self._query_limit[fresh] = np.maximum(start, cap)
        self.query_diverged = ~((self.query_loss <= self._query_limit) & (self.query_loss > -np.inf))
        if np.count_nonzero(self.query_diverged):
            self.query_loss[self.query_diverged] = self._query_limit[self.query_diverged]
            query_loss = torch.from_numpy(self.query_loss).to(both)
        metrics = family.metrics(query_outputs, query, query_loss)
        self.scores = family.score(torch.from_numpy(losses)).numpy()
        self.metrics = {
            # A metric that is the loss itself, as in regression, is available already.
            name: self.query_loss if values is query_loss else values.cpu().numpy().astype(np.float64)
            for name, values in metrics.items()
        }

    def _differentiate(self, trace: Trace, batch: Batch) -> Tensor:
        return self.family.output_gradient(trace.outputs, batch).to(trace.outputs.dtype)

    def __getstate__(self) -> dict[str, Any]:
        # Passes refer to workspaces, which are not copied; they are recomputed when missing.
        return self.__dict__ | {"_passes": None, "_squares": None}


def _replace(losses: NDArray[np.float64], cap: float, *, least: float) -> NDArray[np.float64]:
    """Replaces in place what is not finite: minus infinity by `least`, anything else by the cap."""
    # A finite sum has finite terms, and is found in a tenth of the time.
    if not math.isfinite(np.add.reduce(losses, axis=None)):
        np.nan_to_num(losses, copy=False, nan=cap, posinf=cap, neginf=least)
    return losses

"""n sub-networks under training: their layers and their fast weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.networks.architecture import Filled, Trace
from gym_reml.networks.arrays import Squares
from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.networks.compiled import CompiledDense, CompiledTrace, find_core
from gym_reml.networks.optimizers import OptimizerState, find_directions, find_optimizer, present_positions
from gym_reml.networks.weights import CLIP, LARGE_STEP, LONGEST, Weights, descend, gradient_norms, within_range
from gym_reml.networks.work import count_work
from gym_reml.pool.layer_pool import LayerPool


class SubNetworks:
    """n networks that grow layer by layer and take gradient steps, each on its own task.

    Attributes:
        pool: the pool that weights are copied from.
        architecture: what computes the networks, the pool's or a faster one that does the same.
        compiled: whether that is a compiled one, which differs from the pool's by rounding.
        slots: number of slots, the largest depth.
        clip: norm at which gradients are clipped, None for none.
        optimizer: turns clipped gradients into steps.
        depth: (n,) int64, number of layers.
        layers: (slots, n) int64, numbers of the pool layers in the slots, 0 for an empty slot.
        broken: (n,) bool, networks with infinite or NaN weights after the last step; None if there cannot be any.
    """

    def __init__(
        self,
        count: int,
        pool: LayerPool,
        *,
        slots: int,
        clip: float | None = CLIP,
        optimizer: str = "sgd",
        core: str = "torch",
    ) -> None:
        """Allocates n = `count` networks; `restart` initialises them.

        Raises:
            ValueError: an unknown optimizer, or see `find_core`.
            ImportError: see `find_core`.
        """
        self.pool = pool
        self.architecture = find_core(core, pool.architecture, pool.device)
        self.compiled = isinstance(self.architecture, CompiledDense)
        self.slots = slots
        self.clip = clip
        self.optimizer = find_optimizer(optimizer)
        self.depth = np.zeros(count, dtype=np.int64)
        self.layers = np.zeros((slots, count), dtype=np.int64)
        self.broken: NDArray[np.bool_] | None = None
        empty = torch.zeros((slots, count), dtype=torch.int64, device=pool.device)
        self._assembly, blank = pool.assemble(empty), pool.assemble(empty).weights
        # Two sets of weights: a step writes to the other set, so a refused step can be undone by copying back.
        self._weights = blank.like([tensor.detach().clone() for tensor in blank.tensors()])
        self._other = blank.like([tensor.detach().clone() for tensor in blank.tensors()])
        # Likewise two states of the optimizer; none for plain gradient descent, which has no state.
        self._state: OptimizerState | None = None
        self._other_state: OptimizerState | None = None
        if self.optimizer.tensors:
            self._state, self._other_state = (OptimizerState.initial(self.optimizer, blank) for _ in range(2))
        self._workspace = Workspace()
        self._filled: Filled = [False] * slots

    @property
    def plain(self) -> bool:
        """Whether `step` may be called: compiled, by gradient descent, and one pass over all points has all outputs."""
        pool = self.pool
        special = pool.rates or pool.architecture.across_points or pool.constant_outputs
        return self.compiled and self._state is None and not special

    def restart(self, rows: NDArray[np.int64], initial_layers: Sequence[int]) -> None:
        """Resets these rows to the pool's initial weights: stem, `initial_layers` and head."""
        self.depth[rows] = len(initial_layers)
        self.layers[:, rows] = 0
        self.layers[: len(initial_layers), rows] = np.asarray(initial_layers, dtype=np.int64)[:, None]
        pool, positions = self.pool, self._weights.positions
        for part, position in (("stem", positions[0]), ("head", positions[-1])):
            for name, target in position.items():
                self._write(target, rows, pool.parameters[f"{part}.{name}"])
        for slot in range(self.slots):
            if slot < len(initial_layers):
                self._copy_layer(slot, rows, np.full(len(rows), initial_layers[slot]))
            elif pool.architecture.skip and not self.compiled:
                self._empty(slot, rows)
        if self._state is not None:
            self._state.taken[:, self._index(rows)] = 0
            for tensor in self._state.flat():
                self._write(tensor, rows, 0.0)
        self._refresh()

    def _empty(self, slot: int, rows: NDArray[np.int64]) -> None:
        for target in self._weights.positions[slot + 1].values():
            self._write(target, rows, 0.0)

    def _write(self, target: Tensor, rows: NDArray[np.int64], value: Tensor | float) -> None:
        if len(rows) < len(self.depth):
            target[self._index(rows)] = value
        elif isinstance(value, Tensor):
            target.copy_(value)
        else:
            target.fill_(value)

    def append(self, layers: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Appends pool layer `layers[i]` to network i, unless it is 0 or the network has no empty slot.

        Args:
            layers: (n,) int64, numbers of pool layers from 1, or 0.

        Returns:
            The layers appended, (n,), 0 for none, and the first position (stem 0, slots from 1) that changed in any
            row, or slots + 1 if none did.
        """
        growing = (layers > 0) & (self.depth < self.slots)
        appended = layers * growing
        if not np.count_nonzero(growing):
            return appended, self.slots + 1
        changed = set(self.depth[growing].tolist())
        for slot in changed:
            rows = np.flatnonzero(growing if len(changed) == 1 else growing & (self.depth == slot))
            self._copy_layer(slot, rows, layers[rows])
            self.layers[slot, rows] = layers[rows]
        self.depth += growing
        self._refresh()
        return appended, min(changed) + 1

    def _copy_layer(self, slot: int, rows: NDArray[np.int64], layers: NDArray[np.int64]) -> None:
        for name, target in self._weights.positions[slot + 1].items():
            source = self.pool.parameters[f"layers.{name}"]
            if len(rows) == 1:
                target[int(rows[0])].copy_(source[int(layers[0]) - 1])
                continue
            chosen = self._index(layers - 1)
            # Both are several times faster than indexing by a tensor.
            if len(rows) == len(target):
                torch.index_select(source, 0, chosen, out=target)
            else:
                target.index_copy_(0, self._index(rows), source.index_select(0, chosen))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Inputs (n, points, in_features) in the form that `forward` takes; see `Architecture.prepare`."""
        return self.architecture.prepare(inputs, self.pool.fixed)

    def norms(self, step: NDArray[np.int64]) -> list[Tensor] | None:
        """Norms of stem and slots at these steps (n,) int64; None unless the pool has norms for each step."""
        if self.pool.norm_steps is None:
            return None
        return self._assembly.norms(torch.from_numpy(step).to(self.pool.device), running=True)

    def forward(
        self,
        prepared: Tensor | BiasedInputs,
        workspace: Workspace | None = None,
        *,
        trace: Trace | None = None,
        start: int = 0,
        norms: list[Tensor] | None = None,
        kept: int | None = None,
    ) -> Trace:
        """Computes the networks' outputs; see `Architecture.forward`."""
        return self.architecture.forward(
            self._weights,
            prepared,
            filled=self._filled,
            norms=norms,
            workspace=workspace,
            trace=trace,
            start=start,
            kept=kept,
        )

    def descend(
        self, trace: Trace, output_gradient: Tensor, *, step_sizes: NDArray[np.float32], clock: NDArray[np.int64]
    ) -> Tensor:
        """One step of every network by the optimizer, on gradients that are clipped if there is a `clip`.

        The optimizer's state of a network whose step sizes are all 0 does not change: it takes no step.

        Args:
            trace: forward pass over the support sets.
            output_gradient: gradients of the support losses with respect to the outputs, (n, points, out_features).
            step_sizes: (n,) float32, or (slots + 2, n) for one at each position.
            clock: (n,) int64, number of steps taken before this one.

        Returns:
            Norms of the gradients by position, before clipping, (slots + 2, n); 0 for empty slots.
        """
        count_work(inner_gradients=len(self.depth))
        rates = self._assembly.rates(clock) if self.pool.rates else None
        steps = torch.from_numpy(step_sizes).to(self.pool.device)
        passed: Any = {"output_gradient": output_gradient, "filled": self._filled, "workspace": self._workspace}
        if self._state is None:
            new, norms_before, together = self.architecture.descend(
                self._weights, trace, **passed, step_sizes=steps, clip=self.clip, rates=rates, out=self._other
            )
        else:
            gradient = self.architecture.gradient(self._weights, trace, **passed)
            norms_before = gradient_norms(gradient)
            gradient, norms, together = within_range(gradient, norms_before, self.clip)
            gradient = self._directions(gradient, norms, steps)
            new = descend(
                self._weights, gradient, norms=norms, step_sizes=steps, clip=None, rates=rates, out=self._other
            )
        self._taken(new, step_sizes, together)
        return norms_before

    def step(
        self,
        layers: NDArray[np.int64],
        trace: CompiledTrace,
        squares: Squares,
        step_sizes: NDArray[np.float32],
        limits: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], Tensor, NDArray[np.bool_]]:
        """`append`, `descend` on mean squared errors, the next pass, and `take_back`, as one, of `plain` networks.

        Args:
            layers, step_sizes: see `append` and `descend`.
            trace: over all points, of which those of the support sets are kept; it becomes that of the networks after.
            squares: of the networks before, replaced likewise.
            limits: (n,); steps are undone after which a support loss is not up to this, or a weight not finite.

        Returns:
            The layers appended; what `descend` returns; and whose steps were undone, (n,).
        """
        assert isinstance(self.architecture, CompiledDense)
        count_work(inner_gradients=len(layers))
        self.broken = None
        appended = layers.copy()
        lengths, refused = self.architecture.step(
            self._weights,
            trace,
            layers=appended,
            filled=self.layers,
            pool=self.pool.parameters,
            squares=squares,
            step_sizes=step_sizes,
            clip=self.clip,
            limits=limits,
            out=self._other,
        )
        self._weights, self._other = self._other, self._weights
        return appended, torch.from_numpy(lengths), refused

    def squared_errors(self, outputs: Tensor, query_outputs: Tensor, squares: Squares) -> None:
        """Writes losses and gradient of these outputs, for networks that are `compiled`."""
        assert isinstance(self.architecture, CompiledDense)
        self.architecture.squared_errors(outputs, query_outputs, squares)

    def write_observed(self, trace: Any, output_gradient: Tensor, **arguments: Any) -> None:
        """Writes what agents observe, for networks that are `compiled`; see `CompiledDense.write_observed`."""
        assert isinstance(self.architecture, CompiledDense)
        self.architecture.write_observed(trace, output_gradient, **arguments)

    def _taken(self, new: Weights, step_sizes: NDArray[np.float32], together: float) -> None:
        """A step to new weights was taken, by gradients whose norms have this sum: finds out which are `broken`."""
        self._weights, self._other = new, self._weights
        self.broken = None
        short = together <= LONGEST
        longest = together if self.clip is None else self.clip
        state = [] if self._state is None else self._state.flat()
        if self._state is not None:
            # Other optimizers' steps have other lengths; a finite sum has finite terms, and is found faster.
            sums = [tensor.sum() for tensor in [*new.tensors(), *state]]
            check = not math.isfinite(float(torch.stack(sums).sum()))
        else:
            check = not short or float(np.maximum.reduce(step_sizes, axis=None)) * float(longest) > LARGE_STEP
        if check:
            changed = [*new.tensors(), *state]
            sound = torch.stack([tensor.isfinite().flatten(1).all(dim=1) for tensor in changed]).all(dim=0)
            self.broken = ~sound.cpu().numpy()

    def _directions(self, gradient: Weights, norms: Tensor, step_sizes: Tensor) -> Weights:
        """The optimizer's directions for these gradients; its new state takes the place of the one before the last."""
        assert self._state is not None
        assert self._other_state is not None
        directions, after = find_directions(
            self.optimizer,
            gradient,
            self._state,
            norms=norms,
            clip=self.clip,
            present=present_positions(torch.from_numpy(self.depth).to(self.pool.device), self.slots),
            step_sizes=step_sizes,
        )
        state, self._other_state = self._other_state, self._state
        # Copied, because tensors made in inference mode could not be changed outside of it.
        for target, source in zip([state.taken, *state.flat()], [after.taken, *after.flat()], strict=True):
            target.copy_(source)
        self._state = state
        return directions

    def take_back(self, rows: NDArray[np.int64], depth: NDArray[np.int64]) -> None:
        """Undoes the last `append` and `descend` of these rows; `depth` is their depth before `append`."""
        index = self._index(rows)
        for target, source in zip(self._weights.tensors(), self._other.tensors(), strict=True):
            target.index_copy_(0, index, source.index_select(0, index))
        if self._state is not None and self._other_state is not None:
            self._state.taken[:, index] = self._other_state.taken[:, index]
            for target, source in zip(self._state.flat(), self._other_state.flat(), strict=True):
                target.index_copy_(0, index, source.index_select(0, index))
        for row, before in zip(rows, depth, strict=True):
            self.layers[before:, row] = 0
            if self.pool.architecture.skip and not self.compiled:
                for slot in range(before, self.slots):
                    self._empty(slot, np.array([row]))
        self.depth[rows] = depth
        self._refresh()

    def weights(self, row: int) -> Weights:
        """A copy of one network's fast weights, with n = 1; if layers are skipped, empty slots hold zeros."""
        copy = self._weights.like([tensor[row : row + 1].clone() for tensor in self._weights.tensors()])
        if self.compiled and self.architecture.skip:  # whose loops leave in them what was there
            for position in copy.positions[1 + int(self.depth[row]) : 1 + self.slots]:
                for tensor in position.values():
                    tensor.zero_()
        return copy

    def _refresh(self) -> None:
        architecture, depth = self.architecture, self.depth
        if architecture.skip and not self.compiled:  # empty slots hold zeros, and are computed like the others
            depth = np.full_like(depth, np.maximum.reduce(depth))
        self._filled = architecture.filled(self.layers, depth, self.pool.device)
        if self.pool.rates or self.pool.norm_steps:
            self._assembly = self.pool.assemble(torch.from_numpy(self.layers).to(self.pool.device))

    def _index(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self.pool.device)

"""Tasks of n rows, with their support and query sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.streams import Column, RowStreams
from gym_reml.tasks.base import Batch, Generators, TaskFamily, Tasks

Rows = NDArray[np.int64]

ROWS_OF_A_THREAD = 8192
"""At least: with four threads of 1,024 rows each, steps of 4,096 rows on a GPU took twice as long as with one."""

Outputs = Callable[["Tensor | None", Tensor], Tensor]
"""From rows (int64, None for all) and inputs (rows, points, in_features) to outputs of the rows' networks."""


class TaskData:
    """The current task of each row, its support set and its query set.

    Attributes:
        family: the distribution of tasks.
        count: n.
        tasks: the tasks, (n, ...) by name; see `TaskFamily.draw`.
        parameters: the tasks' parameters for infos, (n, ...) by name; never modified.
        support, query: the data, on the networks' device and in their dtype; without points before the first `collect`.
        streams: the rows' random streams; empty before the first `seed`.
    """

    def __init__(self, family: TaskFamily, count: int, *, device: torch.device, dtype: torch.dtype) -> None:
        """Starts without tasks."""
        self.family, self.count = family, count
        self.tasks: Tasks = {}
        self.parameters: Tasks = {}
        self.streams: list[RowStreams] = []
        empty = torch.zeros((count, 0, family.in_features), dtype=dtype, device=device)
        self.support, self.query = Batch(empty, empty), Batch(empty, empty)
        self._device, self._dtype = device, dtype
        self._columns: dict[str, Column] = {}

    def seed(self, rows: Sequence[int] | Rows, streams: Sequence[RowStreams]) -> None:
        """Sets the random streams of these rows, their only source of randomness."""
        if not self.streams:
            self.streams = list(streams)
        for row, stream in zip(rows, streams, strict=True):
            self.streams[row] = stream
        self._columns.clear()

    def draw(self, rows: Rows, given: Tasks | None = None) -> None:
        """Draws new tasks for these rows, or sets those returned by `TaskFamily.read_task`."""
        generators = self.generators("task", rows)
        tasks = self.family.draw(generators) if given is None else self.family.draw_given(given, generators)
        if len(rows) == self.count:
            self.tasks = tasks
        else:
            for name, values in tasks.items():
                self.tasks[name][rows] = values
        # Copies, shared by all infos until the next draw.
        self.parameters = {name: values.copy() for name, values in self.family.task_parameters(self.tasks).items()}

    def collect(self, rows: Rows, outputs: Outputs) -> None:
        """Draws support and query sets for these rows, as tensors that replays can differentiate."""
        with torch.inference_mode(False), torch.no_grad():
            all_rows, index = len(rows) == self.count, self._index(rows)
            tasks = self.tasks if all_rows else {name: values[rows] for name, values in self.tasks.items()}

            def forward(inputs: Tensor) -> Tensor:
                return outputs(None if all_rows else index, inputs)

            batches = [self._drawn(part, tasks, forward, self.generators(part, rows)) for part in ("support", "query")]
            if all_rows:
                self.support, self.query = batches
            else:
                self._assign(index, batches)

    def put_back(self, rows: Rows, before: Sequence[Batch]) -> None:
        """Restores earlier support and query sets, `before` (batches of n rows), in these rows."""
        with torch.inference_mode(False), torch.no_grad():
            index = self._index(rows)
            self._assign(index, [batch.rows(index) for batch in before])

    def inputs(self) -> Tensor:
        """Inputs of both sets, (n, support and query points, in_features)."""
        return torch.cat([self.support.inputs, self.query.inputs], dim=1)

    def read_task(self, given: Any, rows: Rows) -> Tasks:
        """Reads a user's tasks for these rows; see `TaskFamily.read_task`."""
        return self.family.read_task(given, rows, self.count)

    def generators(self, part: str, rows: Rows | None = None) -> Column:
        """The generators of one purpose, a field of `RowStreams`, of these rows, or all (None)."""
        if part not in self._columns:
            self._columns[part] = Column(map(attrgetter(part), self.streams))
        column = self._columns[part]
        return column if rows is None or len(rows) == self.count else column.part(rows)

    def _drawn(self, part: str, tasks: Tasks, forward: Callable[[Tensor], Tensor], generators: Column) -> Batch:
        """The "support" or "query" sets of tasks, drawn by as many threads as torch has, if that is worth it."""
        draw: Callable[[Tasks, Callable[[Tensor], Tensor], Generators], Batch] = getattr(self.family, part)
        count = len(generators)
        threads = min(torch.get_num_threads(), count // ROWS_OF_A_THREAD) if self.family.in_threads else 1
        if threads < 2:
            return draw(tasks, forward, generators).to(self._device, self._dtype)
        edges = np.linspace(0, count, threads + 1).astype(int).tolist()
        pieces = [slice(*ends) for ends in itertools.pairwise(edges)]

        def draw_piece(piece: slice) -> Batch:
            batch = draw({name: values[piece] for name, values in tasks.items()}, forward, generators.part(piece))
            return batch.to(self._device, self._dtype)

        with ThreadPoolExecutor(threads) as pool:
            # numpy's error state is a variable of the context.
            drawn = [pool.submit(copy_context().run, draw_piece, piece) for piece in pieces]
            return Batch.concatenate([piece.result() for piece in drawn])

    def _assign(self, index: Tensor, batches: Sequence[Batch]) -> None:
        for batch, other in zip((self.support, self.query), batches, strict=True):
            batch.assign(index, other)

    def _index(self, rows: Rows) -> Tensor:
        return torch.from_numpy(rows).to(self._device)

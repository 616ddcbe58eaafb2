"""Minibatches of the support sets: a part of its points for every gradient step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.checks import is_integer
from gym_reml.mdp.task_data import TaskData
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import WEIGHTS, Batch, TaskFamily, uniforms

Rows = NDArray[np.int64]


class Minibatches:
    """Minibatches of n rows, as those of a DataLoader with `shuffle=True` and `drop_last=True`.

    Each pass over a row's support set visits its points in a new random order, drawn from the row's own stream, and
    leaves out the last ones if they do not fill a minibatch.

    Attributes:
        size: number of points of a minibatch.
    """

    def __init__(self, data: TaskData, size: int) -> None:
        """Takes the rows' data; `restart` before `draw`."""
        self.size, self._data = size, data
        # The rest of each row's pass: points in their order, and where the next minibatch begins; none is left.
        self._order = np.zeros((data.count, 0), dtype=np.int64)
        self._start = np.zeros(data.count, dtype=np.int64)
        self._count = np.zeros(data.count, dtype=np.int64)

    def restart(self, rows: Rows) -> None:
        """Ends the passes of these rows, whose support sets are new."""
        support = self._data.support
        if self._order.shape[1] != support.inputs.shape[1]:
            self._order = np.zeros(support.inputs.shape[:2], dtype=np.int64)
        self._start[rows], self._count[rows] = 0, 0

    def draw(self) -> Batch:
        """The next minibatch of every row, as tensors that replays can differentiate."""
        support, streams = self._data.support, self._data.streams
        ended = np.flatnonzero(self._start + self.size > self._count)
        if len(ended):
            places = uniforms([streams[row].batches for row in ended], support.inputs.shape[1])
            if WEIGHTS in support.extras:
                # Copies that pad a row have no weight; they come last, and no minibatch reaches them.
                places[support.extras[WEIGHTS].cpu().numpy()[ended] == 0.0] = np.inf
            self._order[ended], self._start[ended] = places.argsort(axis=1), 0
            self._count[ended] = np.isfinite(places).sum(axis=1)
        chosen = np.take_along_axis(self._order, self._start[:, None] + np.arange(self.size), axis=1)
        self._start += self.size
        with torch.inference_mode(False), torch.no_grad():
            return support.points(torch.from_numpy(chosen).to(support.inputs.device))


def check_batch_size(size: int, family: TaskFamily, pool: LayerPool) -> None:
    """Checks the number of points of minibatches.

    Raises:
        ValueError: not an integer from 1 to the size of the smallest support set; a family whose data are drawn anew at
            every step; or a single point for a layer kind with batch statistics.
    """
    if not family.fixed_data:
        raise ValueError(
            f"batch_size={size!r}: must be None: the support sets of {family.name!r} are drawn anew for every step"
        )
    # Sizes are the same for all tasks but for the number of shots.
    generators = [np.random.default_rng(0)]
    batch = family.support(family.draw(generators), lambda inputs: inputs, generators)
    low, high = (1, 1) if isinstance(family.shots, int) else family.shots
    most = batch.inputs.shape[1] * low // high
    if not is_integer(size) or not 1 <= size <= most:
        raise ValueError(
            f"batch_size={size!r}: must be None or an integer from 1 to {most}, the points of the smallest support set"
        )
    if size == 1 and pool.architecture.across_points:
        raise ValueError(f"batch_size=1: layers of kind {pool.kind!r} use batch statistics of at least 2 points")
